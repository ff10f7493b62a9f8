"""Printed JavaScript run by Node."""

import json
import shutil
import subprocess
from typing import Any

import pytest

from nnlab.playground.primitives import PRELUDE

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed.")


def run(functions: str, expression: str, given: Any = None, prelude: str = PRELUDE) -> Any:
    """Return the value of an expression that may use the functions and the JSON value `given`."""
    program = (
        f'"use strict";\n{prelude}\n{functions}\n'
        'const given = JSON.parse(require("fs").readFileSync(0, "utf-8"));\n'
        "const plain = (k, v) => ArrayBuffer.isView(v) ? Array.from(v) : "
        'typeof v === "number" && !Number.isFinite(v) ? String(v) : v;\n'
        f"process.stdout.write(JSON.stringify({expression}, plain));\n"
    )
    done = subprocess.run(
        ["node", "-e", program], input=json.dumps(given), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)
