"""Straight-through values, changed cotangents, and what analysis makes of stored weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.costs import count, stored_bytes
from nnlab.ops.straight_through import quantize_cotangent, stored_in, straight_through
from nnlab.testing import check_gradient_rule

X: Any = jnp.float32([-2.25, -0.5, 0.0, 0.5, 1.75])


@pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_straight_through_value(thorough):
    check_gradient_rule(
        lambda x: straight_through(jnp.round(x), x),
        [X],
        value=np.round,
        potentials=[lambda x: x],
        rtol=0,
        atol=0,
        thorough=thorough,
    )


def test_the_value_of_a_straight_through_value_gets_no_cotangent():
    gradient = jax.grad(lambda v, x: straight_through(v, x).sum(), argnums=(0, 1))(X, X + 1)
    np.testing.assert_array_equal(gradient[0], np.zeros(5))
    np.testing.assert_array_equal(gradient[1], np.ones(5))


def test_a_quantised_cotangent():
    op = quantize_cotangent(jnp.round)
    y, pull = jax.vjp(op, X)
    np.testing.assert_array_equal(y, X)
    np.testing.assert_array_equal(pull(X)[0], [-2, 0, 0, 0, 2])  # halves to even


def ternary(w):
    scale = jnp.abs(w).mean(axis=0)
    return jnp.round(jnp.clip(w / scale, -1, 1)), scale


QUANTISE = stored_in(2, ternary)
W = jax.ShapeDtypeStruct((10, 3), jnp.float32)
ROWS = jax.ShapeDtypeStruct((4, 10), jnp.float32)


def layer(w, x):
    values, scale = QUANTISE(w)
    return x @ straight_through(values, w) * scale


def test_what_is_stored_beside_the_bits_counts_too():
    assert stored_bytes(layer, W, ROWS) == 8 + 12  # 60 bits; a float32 for each of 3 filters
    assert stored_bytes(lambda w, x: layer(w, x) + w.sum(), W, ROWS) == 120

    def of_two(w, x):  # 60 bits, which hold all of the second array
        return x @ stored_in(2, lambda a, b: a * b)(w[0], w[1])

    assert stored_bytes(of_two, (W, W), ROWS) == 8
    assert stored_bytes(lambda w, x: x @ QUANTISE(w.astype(jnp.bfloat16))[0], W, ROWS) == 8 + 6


def test_storing_weights_is_no_arithmetic_of_inference():
    assert count(layer, W, ROWS).totals() == count(
        lambda x, signs, scale: x @ signs * scale, ROWS, W, jax.ShapeDtypeStruct((3,), jnp.float32)
    ).totals() | {"other": 0}


def test_a_quantiser_gives_what_it_gave_without_its_mark():
    w = np.asarray(np.random.default_rng(0).normal(size=(10, 3)), np.float32)
    for got, expected in zip(QUANTISE(w), jax.jit(ternary)(w), strict=True):
        np.testing.assert_array_equal(got, expected)
