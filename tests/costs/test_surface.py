"""What importing `nnlab.costs` does without."""

import subprocess
import sys


def test_import_needs_no_matplotlib():
    blocked = "import sys; sys.modules.update(matplotlib=None, scipy=None, sklearn=None)"
    subprocess.run([sys.executable, "-c", f"{blocked}; import nnlab.costs"], check=True)
