"""Losses against numbers worked out by hand."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.training import (
    cross_entropy,
    mean_squared_error,
    squared_hinge,
    with_auxiliary,
)

LOGITS = jnp.array([[0.5, -2.0], [-1.0, 1.0]])


def test_cross_entropy():
    # Class 1 has probability 3/4 in the first row, class 0 1/2 in the second.
    logits = jnp.array([[0.0, np.log(3.0)], [7.0, 7.0]])
    expected = (np.log(4 / 3) + np.log(2)) / 2
    assert float(cross_entropy(logits, jnp.array([1, 0]))) == pytest.approx(expected, rel=1e-6)
    assert float(cross_entropy(jnp.array([[1e4, -1e4]]), jnp.array([1]))) == 2e4


@pytest.mark.parametrize(
    ("loss", "labels", "value"),
    [
        # t y is 0.5 and 2, then -1 and -1: 0.25 + 0 + 4 + 4 over 4
        (squared_hinge, [0, 0], 2.0625),
        # t y is 0.5 and 2, then 1 and 1, at the margin
        (squared_hinge, [0, 1], 0.0625),
        # 0.25 + 4 + 4 + 1 over 4
        (mean_squared_error, [0, 0], 2.3125),
        # 0.25 + 4 + 1 + 0 over 4
        (mean_squared_error, [0, 1], 1.3125),
    ],
)
def test_golden(loss, labels, value):
    assert float(loss(LOGITS, jnp.array(labels))) == value


def test_gradient_of_the_squared_hinge():
    # -2 t max(0, 1 - t y) / 4, nothing beyond or at the margin
    gradient = jax.grad(squared_hinge)(LOGITS, jnp.array([0, 1]))
    assert gradient.tolist() == [[-0.25, 0], [0, 0]]


@pytest.mark.parametrize("loss", [cross_entropy, squared_hinge, mean_squared_error])
def test_a_scalar_in_the_dtype_of_the_logits(loss):
    for dtype in (jnp.float32, jnp.bfloat16):
        value = loss(LOGITS.astype(dtype), jnp.array([0, 1], jnp.int8))
        assert value.shape == () and value.dtype == dtype


class Outputs(NamedTuple):
    logits: jax.Array
    auxiliary: tuple[jax.Array, ...]


def test_auxiliary_terms_add_up():
    # t y of the logits is 0.5 and 2, then -1 and -1: (0.25 + 0 + 4 + 4) / 4; of the first head
    # twice 0 and 0: 1; of the second 0, 0 and 1, 1: 2 / 4.
    heads = jnp.zeros((2, 2)), jnp.array([[0.0, 0.0], [1.0, -1.0]])
    labels = jnp.array([0, 0])
    loss = with_auxiliary(squared_hinge, weight=0.25)
    assert float(loss(Outputs(LOGITS, heads), labels)) == 2.0625 + 0.25 * (1 + 0.5)
    assert float(loss(Outputs(LOGITS, ()), labels)) == 2.0625
    by_default = with_auxiliary()(Outputs(LOGITS, heads[:1]), labels)
    expected = float(cross_entropy(LOGITS, labels)) + 0.3 * np.log(2)
    assert float(by_default) == pytest.approx(expected, rel=1e-6)


def test_auxiliary_gradients_reach_every_head():
    outputs = Outputs(LOGITS, (LOGITS, 2 * LOGITS))
    labels = jnp.array([0, 1])
    got = jax.grad(with_auxiliary(squared_hinge, weight=0.5))(outputs, labels)
    own = jax.grad(squared_hinge)
    assert got.logits.tolist() == own(LOGITS, labels).tolist()
    assert got.auxiliary[0].tolist() == (0.5 * own(LOGITS, labels)).tolist()
    assert got.auxiliary[1].tolist() == (0.5 * own(2 * LOGITS, labels)).tolist()


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_a_weight_that_is_none(weight):
    with pytest.raises(InputError, match=rf"finite and at least 0, not {weight}\.$"):
        with_auxiliary(weight=weight)


def test_outputs_without_heads():
    words = r"needs outputs with logits and auxiliary, as a model with auxiliary=True gives"
    with pytest.raises(InputError, match=words):
        with_auxiliary()(LOGITS, jnp.array([0, 1]))
