"""Losses against numbers worked out by hand."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.training import (
    accuracy,
    cross_entropy,
    soft_labels,
    with_auxiliary,
)

LOGITS: Any = np.array([[0.5, -2.0], [-1.0, 1.0]], np.float32)
quick_entropy = jax.jit(cross_entropy)


def test_cross_entropy():
    # Class 1 has probability 3/4 in the first row, class 0 1/2 in the second.
    logits = np.array([[0.0, np.log(3.0)], [7.0, 7.0]])
    expected = (np.log(4 / 3) + np.log(2)) / 2
    assert float(quick_entropy(logits, np.array([1, 0]))) == pytest.approx(expected, rel=1e-6)
    assert float(quick_entropy(np.array([[1e4, -1e4]] * 2), np.array([1, 1]))) == 2e4


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_that_is_none_of_the_classes_teaches_nothing(label):
    assert np.isnan(quick_entropy(LOGITS, np.array([0, label])))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.array([0, 1, 1]), r"labels have shape \[3\], expected \[2\]"),
        (np.eye(2, dtype=int), r"labels have shape \[2, 2\], expected \[2\]"),
        (np.array([[0], [1]]), r"labels have shape \[2, 1\], expected \[2\]"),
        (np.array([0.0, 1.0]), "labels are float64, expected integers"),
        (np.array([False, True]), "labels are bool, expected integers"),
        ([0, 1], "labels are a list, expected an array"),
    ],
)
def test_labels_that_are_not_a_class_for_each_prediction(labels, said):
    with pytest.raises(InputError, match=said):
        cross_entropy(LOGITS, labels)


def test_a_scalar_in_the_dtype_of_the_logits():
    for dtype in (jnp.float32, jnp.bfloat16):
        value = jax.eval_shape(cross_entropy, LOGITS.astype(dtype), np.array([0, 1], np.int8))
        assert value.shape == () and value.dtype == dtype


def squared_sum(logits, labels):
    return jnp.square(logits.sum(-1) - labels).sum()


class Outputs(NamedTuple):
    logits: jax.Array
    auxiliary: tuple[jax.Array, ...]


def test_auxiliary_terms_add_up():
    # Rows of the logits sum to -1.5 and 0, of the first head to 0 and 0, of the second to 3 and 0.
    heads: Any = np.zeros((2, 2), np.float32), np.array([[1, 2], [1, -1]], np.float32)
    labels = np.array([0, 0])
    loss = jax.jit(with_auxiliary(squared_sum, weight=0.25))
    assert float(loss(Outputs(LOGITS, heads), labels)) == 2.25 + 0.25 * (0 + 9)
    assert float(loss(Outputs(LOGITS, ()), labels)) == 2.25
    by_default = jax.jit(with_auxiliary())(Outputs(LOGITS, heads[:1]), labels)
    expected = float(quick_entropy(LOGITS, labels)) + 0.3 * np.log(2)
    assert float(by_default) == pytest.approx(expected, rel=1e-6)


def test_auxiliary_gradients_reach_every_head():
    outputs = Outputs(LOGITS, (LOGITS, 2 * LOGITS))
    labels = np.array([0, 1])
    got = jax.jit(jax.grad(with_auxiliary(squared_sum, weight=0.5)))(outputs, labels)
    own = jax.jit(jax.grad(squared_sum))
    assert got.logits.tolist() == own(LOGITS, labels).tolist()
    assert got.auxiliary[0].tolist() == (0.5 * np.asarray(own(LOGITS, labels))).tolist()
    assert got.auxiliary[1].tolist() == (0.5 * np.asarray(own(2 * LOGITS, labels))).tolist()


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_a_weight_that_is_none(weight):
    with pytest.raises(InputError, match=rf"finite and at least 0, not {weight}\.$"):
        with_auxiliary(weight=weight)


def test_outputs_without_heads():
    words = r"needs outputs with logits and auxiliary, as a model with auxiliary=True returns"
    with pytest.raises(InputError, match=words):
        with_auxiliary()(LOGITS, jnp.array([0, 1]))


def test_soft_labels():
    logits = np.array([[0.0, np.log(3.0)], [7.0, 7.0]], np.float32)  # 1/4 and 3/4, 1/2 and 1/2
    shares: Any = np.array([[0.5, 0.5], [0.25, 0.75]], np.float32)
    expected = (0.5 * np.log(4) + 0.5 * np.log(4 / 3) + np.log(2)) / 2
    assert float(quick_entropy(logits, shares)) == pytest.approx(expected, rel=1e-6)
    whole = soft_labels(jnp.array([1, 0]), 2)
    assert whole.tolist() == [[0, 1], [1, 0]]
    np.testing.assert_allclose(
        quick_entropy(logits, whole), quick_entropy(logits, np.array([1, 0])), rtol=1e-6
    )
    # The larger logits are those of class 1 and, of two that are equal, class 0.
    assert float(accuracy(jnp.array(logits), shares)["accuracy"]) == (0.5 + 0.25) / 2
    assert np.isnan(soft_labels(jnp.array([2, 0]), 2)).all(axis=1).tolist() == [True, False]


@pytest.mark.parametrize("wrong", [[[0.5, 0.6], [1, 0]], [[1.5, -0.5], [1, 0]], [[0, 0], [1, 0]]])
def test_shares_that_are_none_teach_nothing(wrong):
    assert np.isnan(quick_entropy(LOGITS, np.array(wrong, np.float32)))


def test_shares_of_other_classes():
    with pytest.raises(InputError, match=r"soft labels have shape \[2, 3\], expected \[2, 2\]"):
        cross_entropy(LOGITS, jnp.ones((2, 3)) / 3)
