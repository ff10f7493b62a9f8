"""The benchmark of packed ternary products as a user runs it."""

import json
import subprocess
import sys

import pytest

SCRIPT = "benchmarks/ternary"


@pytest.mark.slow
def test_every_product_is_measured_and_compared(script, tmp_path):
    small = ["--shapes", "1 token", "--threads", "1", "--repeats", "2"]
    command = [sys.executable, script.__file__, *small, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    rows = {row["body"]: row for row in result["rows"]}
    assert {"nnlab 2 bits", "nnlab 1.6 bits", "JAX, 2 bits unpacked to floats"} <= set(rows)
    for body, row in rows.items():
        assert f"1 token, 1 threads, {body}: {1e3 * row['median']:.3f} ms" in done.stdout
        assert row["terms_per_second"] == pytest.approx(2048**2 / row["median"])
        peer = rows.get("PyTorch float32")
        if peer:
            assert row["times PyTorch float32"] == pytest.approx(peer["median"] / row["median"])
    assert result["limits"]["1"]["bytes read"] > 0
