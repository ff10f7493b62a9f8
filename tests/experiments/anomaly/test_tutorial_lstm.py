"""The tutorials' configuration: which steps count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError

SCRIPT = "anomaly/tutorial_lstm"


def test_only_the_last_step_of_a_chart_counts(script):
    data = script.charts(jax.random.key(0), 40)
    assert data.values.shape == (240, 60, 1)
    assert data.counts.sum(axis=1).tolist() == data.counts[:, -1].tolist() == [1.0] * 240
    assert data.labels[::40, -1].tolist() == [0, 1, 2, 3, 4, 5]


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


def test_without_the_corpus_it_says_so(tmp_path, script):
    with pytest.raises(InputError, match="NAB corpus"):
        script.series_pieces(str(tmp_path), 50)
