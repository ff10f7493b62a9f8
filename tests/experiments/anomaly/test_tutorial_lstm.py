"""The tutorials' configuration: its data against their equations, its start, and a small run."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

SCRIPT = Path(__file__).parents[3] / "experiments" / "anomaly" / "tutorial_lstm.py"


def test_only_the_last_step_of_a_chart_counts(script):
    data = script.charts(jax.random.key(0), 3)
    assert data.values.shape == (18, 60, 1)
    assert data.counts.sum(axis=1).tolist() == data.counts[:, -1].tolist() == [1.0] * 18
    assert data.labels[:, -1].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5]


def test_padding_counts_for_nothing(script):
    outputs = jax.random.normal(jax.random.key(0), (2, 4, 2))
    labels = jnp.array([[0, 1, 1, 0], [1, 1, 0, 0]])
    counts = jnp.array([[1.0, 1, 0, 0], [1, 1, 1, 0]])
    changed = outputs.at[0, 2:].set(9.0).at[1, 3:].set(-7.0)
    for function in (script.loss, lambda *a: script.accuracy(*a)["accuracy"]):
        assert function(outputs, (labels, counts)) == function(changed, (labels, counts))
    # hand-worked: two steps with the right class at log-odds 0, so log 2 each, over one sequence
    value = script.loss(jnp.zeros((1, 3, 2)), (jnp.zeros((1, 3), int), jnp.array([[1.0, 1, 0]])))
    assert value == pytest.approx(2 * np.log(2))


@pytest.mark.slow
def test_a_small_run(tmp_path):
    small = ["--tasks", "charts", "--epochs", "1", "--charts", "10", "--out", tmp_path / "run"]
    command = [sys.executable, SCRIPT, *small]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    (row,) = json.loads((tmp_path / "run" / "result.json").read_text())["table"]
    assert row["reloaded"] == "same bits"
    assert row["parameters"] == 4 * 10 * (1 + 10 + 1) + 3 * 10 + 11 * 6
    assert (tmp_path / "run" / "charts.safetensors").is_file()


def test_without_the_corpus_it_says_so(tmp_path, script):
    from nnlab.errors import InputError

    with pytest.raises(InputError, match="NAB corpus"):
        script.series_pieces(str(tmp_path), 50)
