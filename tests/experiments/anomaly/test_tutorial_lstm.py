"""The tutorials' configuration: which steps count."""

import jax
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
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(2, 4, 2)).astype(np.float32)
    labels = np.array([[0, 1, 1, 0], [1, 1, 0, 0]]), np.array([[1.0, 1, 0, 0], [1, 1, 1, 0]])
    changed = outputs.copy()
    changed[0, 2:], changed[1, 3:] = 9.0, -7.0
    loss, accuracy = jax.jit(script.loss), jax.jit(script.accuracy)
    assert loss(outputs, labels) == loss(changed, labels)
    assert accuracy(outputs, labels) == accuracy(changed, labels)
    # by hand: five steps with the right class at log-odds 0, so log 2 each, over two sequences
    assert loss(np.zeros_like(outputs), labels) == pytest.approx(5 / 2 * np.log(2))


def test_without_the_corpus_it_says_so(tmp_path, script):
    with pytest.raises(InputError, match="NAB corpus"):
        script.series_pieces(str(tmp_path), 50)
