"""The benchmark of recurrent networks as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RECURRENT = Path(__file__).parents[3] / "experiments" / "benchmarks" / "recurrent.py"


def run(*args):
    command = [sys.executable, str(RECURRENT), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.slow
def test_every_body_is_measured_and_saved(tmp_path):
    small = ("--features", 8, "--batch-size", 4, "--window", 5, "--repeats", 2)
    process = run(*small, "--out", tmp_path / "run")
    assert process.returncode == 0, process.stderr
    rows = json.loads((tmp_path / "run" / "result.json").read_text())["rows"]
    bodies = {"nnlab LSTM", "Flax LSTM", "PyTorch LSTM", "nnlab LSTM, normalised"}
    assert {row["body"] for row in rows} == bodies | {"nnlab adder LSTM", "nnlab binary LSTM"}
    for row in rows:
        step = row["milliseconds a step"] / 1e3
        assert step > 0 and row["characters a second"] * step == pytest.approx(20, rel=1e-3)
        # 2 layers of 2 · 8 · 32 multiply-adds and 8 · 65, thrice, of 20 characters.
        flop = 3 * 2 * (2 * 2 * 8 * 32 + 8 * 65) * 20
        assert row["gigaflop a second"] * 1e9 * step == pytest.approx(flop, rel=1e-3)
        assert f"{row['body']:24}{1e3 * step:9.1f} ms" in process.stdout
    assert rows[0]["of nnlab LSTM"] == 1


@pytest.mark.parametrize("name", ["features", "batch-size", "window", "repeats", "patience"])
def test_bad_input_is_named_in_one_sentence(name):
    process = run(f"--{name}", "0")
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1 and f"--{name}" in process.stderr
