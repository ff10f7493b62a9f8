"""Activations against their formulas in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.ops.activations import (
    hardlim,
    logsig,
    maxout,
    purelin,
    swish,
    tansig,
)
from nnlab.testing import check_gradient_rule

X: Any = np.linspace(-3, 3, 13, dtype=np.float32)


@pytest.mark.parametrize(
    ("ours", "formula"),
    [
        (purelin, lambda x: x),
        (logsig, lambda x: 1 / (1 + jnp.exp(-x))),
        (tansig, lambda x: 2 / (1 + jnp.exp(-2 * x)) - 1),
    ],
)
def test_textbook_names(ours, formula):
    def passes(f, x):
        y, back = jax.vjp(f, x)
        return y, *back(jnp.ones_like(y))

    y, dx = jax.jit(passes, static_argnums=0)(ours, X)
    with jax.enable_x64(True):
        value, gradient = jax.jit(passes, static_argnums=0)(formula, np.float64(X))
    # A few roundings of numbers up to 1, in exp and in what follows, and of X up to 3 itself.
    np.testing.assert_allclose(y, value, rtol=0, atol=8 * 2**-24)
    np.testing.assert_allclose(dx, gradient, rtol=0, atol=8 * 2**-24)


def test_hardlim_has_no_gradient():
    x = jnp.array([-jnp.inf, -1e-30, -0.0, 0.0, 2.0], jnp.bfloat16)
    y, back = jax.vjp(jax.jit(hardlim), x)
    assert y.dtype == jnp.bfloat16 and y.tolist() == [0, 0, 1, 1, 1]
    assert back(jnp.ones_like(x))[0].tolist() == [0] * 5
    assert np.isnan(hardlim(jnp.array(jnp.nan)))


def test_swish_and_the_gradients_of_both_arguments():
    def formula(x, beta):
        return x / (1 + jnp.exp(-beta * x))

    # A gradient of beta in bfloat16 is a sum of 13 numbers, each with two roundings or three.
    check_gradient_rule(
        swish,
        [X, jnp.float32(1.5)],
        value=jax.jit(formula),
        potentials=[formula] * 2,
        bfloat16_rtol=16 * 2**-8,
        atol=1e-5,
    )
    np.testing.assert_allclose(jax.jit(swish)(X, 1.0), jax.nn.silu(X), rtol=1e-6)


def test_maxout_takes_the_largest_of_neighbours():
    x = jnp.array([[1.0, 5, 3, -1, -2, -3], [0, 0, 7, 2, 9, 2]])
    three = jax.jit(lambda x: maxout(x, 3))
    y, back = jax.vjp(three, x)
    assert y.tolist() == [[5, -1], [7, 9]]
    dx = back(jnp.array([[1.0, 2], [3, 4]]))[0]
    assert dx.tolist() == [[0, 1, 0, 2, 0, 0], [0, 0, 3, 0, 4, 0]]
    assert maxout(x, 1).tolist() == x.tolist()
    for pieces in (0, 4):
        with pytest.raises(InputError, match=rf"divide the last axis of \(2, 6\), not {pieces}\."):
            maxout(x, pieces)
