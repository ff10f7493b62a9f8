"""The benchmark of hooks as a user runs it."""

import json

import pytest

from nnlab.runs.script import run

SCRIPT = "benchmarks/hooks"


@pytest.mark.slow
def test_every_way_is_measured(script, tmp_path):
    flags = ["--steps", "4", "--batch-size", "4", "--epochs", "1", "--rounds", "1"]
    run(script.main, script.Config, [*flags, "--out", str(tmp_path / "run")])
    rows = json.loads((tmp_path / "run" / "result.json").read_text())["table"]
    assert [row["network"] for row in rows] == ["linear", "LeNet-5"]
    for row in rows:
        assert [*row][2:] == ["every 100 steps", "every 10 steps", "every step"]
        assert min([*row.values()][1:]) > 0
