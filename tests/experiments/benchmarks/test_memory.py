"""The benchmark of memory as a user runs it: every figure is saved, and parts take less."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MEMORY = Path(__file__).parents[3] / "experiments" / "benchmarks" / "memory.py"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_every_figure_is_saved_and_parts_take_less(tmp_path):
    small = ("--depths", 8, "--batch", 32, "--repeats", 1, "--out", tmp_path / "run")
    command = [sys.executable, MEMORY, *map(str, small)]
    command += ["--variants", "plain", "blocks computed again", "all together"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert process.returncode == 0, process.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    plain, again, together = result["rows"]
    names = [row["variant"] for row in result["rows"]]
    assert names == ["plain", "blocks computed again", "all together"]
    for row in result["rows"]:
        total = row["arguments_bytes"] + row["results_bytes"] + row["temporary_bytes"]
        assert row["compiled_bytes"] == total - row["shared_bytes"] > 0
        assert row["median"] > 0
        sizes = (row[f"{figure}_bytes"] for figure in ("compiled", "grown"))
        cells = " | ".join(f"{size / 1e6:.0f}" for size in sizes)
        assert f"| 8 | {row['variant']} | {cells} |" in process.stdout
    assert plain["shared_bytes"] == 0 < together["shared_bytes"]
    # Outputs of the seven layers of 16 channels and 32 by 32 pixels, and more, go through one step.
    assert plain["grown_bytes"] > 4 * 32 * 16 * 32 * 32
    for figure in ("compiled", "grown"):  # a quarter of the images, and what stays
        assert together[f"{figure}_bytes"] < plain[f"{figure}_bytes"] / 2
    assert again["compiled_bytes"] < 0.7 * plain["compiled_bytes"]
