"""Runs read back: curves, the best epoch, and files that are damaged."""

import math

import pytest

from nnlab.errors import InputError
from nnlab.runs.reading import Best, best, read_run, read_runs


@pytest.mark.parametrize(
    ("curves", "expected"),
    [
        ({"test_accuracy": [0.1, 0.3, 0.3], "test_loss": [3, 2, 1]}, (2, "test_accuracy", 0.3)),
        ({"test_loss": [3, math.nan, 2]}, (3, "test_loss", 2)),
        ({"validation_loss": [1, 2], "test_accuracy": [0.1, 0.9]}, (1, "validation_loss", 1)),
        ({"train_loss": [1]}, None),
    ],
)
def test_the_best_epoch(curves, expected):
    assert best(curves) == (expected and Best(*expected))


def test_curves_by_network(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": 1}')
    lines = ['{"network": "A", "step": 1, "test_loss": "inf"}', '{"network": "B", "step": 1}']
    file = tmp_path / "metrics.jsonl"
    file.write_text("\n".join([*lines, '{"network": "A", "st']))  # a kill in writing
    found = read_run(tmp_path)
    assert found.curves == {"A": {"step": [1], "test_loss": [math.inf]}, "B": {"step": [1]}}
    assert found.config == {"seed": 1} and found.result is None and not found.finished
    file.write_text("\n".join(["{", *lines]))
    with pytest.raises(InputError, match="damaged in line 1"):
        read_run(tmp_path)


def test_folders_that_are_no_runs(tmp_path):
    with pytest.raises(InputError, match=r"holds no config.json"):
        read_run(tmp_path / "nothing")
    (tmp_path / "sweep.json").write_text('{"runs": [{"folder": "a"}]}')
    with pytest.raises(InputError, match="no run has started"):
        read_runs([tmp_path])
    (tmp_path / "sweep.json").write_text("[]")
    with pytest.raises(InputError, match="expected a JSON object"):
        read_runs([tmp_path])
