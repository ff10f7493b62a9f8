"""The benchmark of packed decoders, made small."""

import json
import subprocess
import sys

import pytest

SCRIPT = "benchmarks/decoder"


@pytest.mark.slow
def test_every_body_writes_and_is_compared(script, tmp_path):
    sizes = ["--layers", "1", "--features", "48", "--prompt", "4", "--count", "3"]
    what = ["--what", "vocabulary of 1,024", "training step", "--repeats", "1"]
    command = [sys.executable, script.__file__, *sizes, *what, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "run" / "result.json").read_text())["rows"]
    written = {row["body"]: row for row in rows if row["what"] != "training step"}
    whole = 4e-6 * (1024 * 48 + 12 * 48**2 + 3 * 48)  # of PyTorch's weights, in megabytes
    assert written["PyTorch float32"]["megabytes of weights a symbol"] == pytest.approx(whole)
    ours, peer = written["nnlab 1.6 bits"], written["PyTorch float32"]
    assert ours["times PyTorch float32"] == pytest.approx(
        ours["symbols a second"] / peer["symbols a second"]
    )
    steps = [row["body"] for row in rows if row["what"] == "training step"]
    assert steps == ["PyTorch float32", "nnlab float32", "nnlab BitNet"]
