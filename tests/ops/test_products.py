"""Convolutions by simple weights: value and gradients of the convolution, a cost of their own."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.costs import count
from nnlab.ops.convolution import conv
from nnlab.ops.products import int8_conv, shift_conv, signed_conv

RNG = np.random.default_rng(0)
X: Any = np.asarray(RNG.integers(-8, 9, (2, 5, 4, 3)) / 4, np.float32)
SIGNS: Any = np.asarray(RNG.integers(-1, 2, (3, 2, 3, 4)), np.float32)
OPTIONS = {"strides": 2, "padding": ((1, 0), (2, 1)), "kernel_dilation": (1, 2)}

every_product = pytest.mark.parametrize("product", [signed_conv, shift_conv, int8_conv])


@functools.partial(jax.jit, static_argnums=0)
def with_gradients(op):
    y, pull = jax.vjp(lambda *a: op(*a, **OPTIONS), X, SIGNS)
    return y, *pull(jnp.ones_like(y))


@every_product
def test_value_and_gradients_are_the_convolutions(product):
    for got, expected in zip(with_gradients(product), with_gradients(conv), strict=True):
        np.testing.assert_array_equal(got, expected)  # quarters: all sums are exact


def test_what_a_term_costs():
    terms = 2 * 5 * 4 * 4 * (3 * 2 * 3)  # elements of y times terms of one

    def costs(product):
        counts = count(product, X, SIGNS)
        assert counts.unknown == {} and counts.other == {}
        return counts.multiplications, counts.additions, counts.bit_operations

    assert costs(signed_conv) == ({}, {"float32": terms}, {})
    assert costs(shift_conv) == ({}, {"float32": terms}, {"int32": terms})
    assert costs(int8_conv) == ({"int8": terms}, {"int8": terms}, {})


@every_product
def test_operands_that_do_not_fit(product):
    with pytest.raises(ValueError, match=rf"{product.__name__} needs as many inputs .* 3 .* 2"):
        product(X, SIGNS[:, :, :2])
    with pytest.raises(TypeError, match=rf"{product.__name__} expects a floating kernel"):
        product(X, SIGNS.astype(jnp.int8))
