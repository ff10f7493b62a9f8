"""The benchmark of recurrent networks as a user runs it."""

import json

import pytest

from nnlab.runs.script import run

SCRIPT = "benchmarks/recurrent"


@pytest.mark.slow
def test_every_body_is_measured_and_saved(script, tmp_path, capsys):
    small = ["--features", "8", "--batch-size", "4", "--window", "5", "--repeats", "2"]
    run(script.main, script.Config, [*small, "--out", str(tmp_path / "run")])
    printed = capsys.readouterr().out
    rows = json.loads((tmp_path / "run" / "result.json").read_text())["rows"]
    bodies = {"nnlab LSTM", "Flax LSTM", "PyTorch LSTM", "nnlab LSTM, normalised"}
    assert {row["body"] for row in rows} == bodies | {"nnlab adder LSTM", "nnlab binary LSTM"}
    for row in rows:
        step = row["milliseconds a step"] / 1e3
        assert step > 0 and row["characters a second"] * step == pytest.approx(20, rel=1e-3)
        # 2 layers of 2 · 8 · 32 multiply-adds and 8 · 65, thrice, of 20 characters.
        flop = 3 * 2 * (2 * 2 * 8 * 32 + 8 * 65) * 20
        assert row["gigaflop a second"] * 1e9 * step == pytest.approx(flop, rel=1e-3)
        assert f"{row['body']:24}{1e3 * step:9.1f} ms" in printed
    assert rows[0]["of nnlab LSTM"] == 1
