"""Layers of any product: their op, their weights, their randomness."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.layers import Conv, ProductConv, ProductDense
from nnlab.ops.adder import adder_conv, adder_dense
from nnlab.ops.convolution import conv

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 4, 3)), jnp.float32)
OPTIONS = {"strides": 2, "padding": "VALID", "kernel_dilation": (1, 2), "use_bias": True}


def test_by_default_it_is_the_convolution():
    y, variables = ProductConv(4, (3, 2), **OPTIONS).init_with_output(jax.random.key(0), X)
    expected = Conv(4, (3, 2), **OPTIONS).init_with_output(jax.random.key(0), X)
    np.testing.assert_array_equal(y, expected[0])
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, expected[1])


def test_the_op_and_the_name_of_its_weights():
    layer = ProductConv(4, 2, op=adder_conv, kernel_name="adder_kernel")
    variables: Any = layer.init(jax.random.key(0), X)
    expected = adder_conv(X, variables["params"]["adder_kernel"])
    np.testing.assert_array_equal(layer.apply(variables, X), expected)


@pytest.mark.parametrize("axes", [(), (2,), (2, 5)])
def test_dense_of_vectors_on_any_axes(axes):
    x = jnp.asarray(np.random.default_rng(1).normal(size=(*axes, 3)), jnp.float32)
    layer = ProductDense(4, op=adder_conv, use_bias=True)
    variables: Any = layer.init(jax.random.key(0), x)
    variables["params"]["bias"] += 1
    expected = adder_dense(x, variables["params"]["kernel"]) + 1
    np.testing.assert_array_equal(layer.apply(variables, x), expected)


def noisy(x, kernel, *, key, **options):
    return conv(x, kernel, **options) + (0 if key is None else jax.random.normal(key))


@pytest.mark.parametrize(
    "layer",
    [ProductConv(4, 2, op=noisy, stochastic=True), ProductDense(4, op=noisy, stochastic=True)],
)
def test_randomness_is_for_training(layer):
    variables = layer.init(jax.random.key(0), X)
    plain, one, same, other = (
        layer.apply(variables, X, rngs=rngs)
        for rngs in (None, *({"dropout": jax.random.key(k)} for k in (1, 1, 2)))
    )
    np.testing.assert_array_equal(one, same)
    assert float(jnp.ptp(one - plain)) < 1e-5 < float(abs(one - plain).max())
    assert float(abs(one - other).max()) > 1e-5


def test_dtypes():
    for layer in (ProductConv(4, 2, dtype=jnp.bfloat16), ProductDense(4, dtype=jnp.bfloat16)):
        variables: Any = layer.init(jax.random.key(0), X)
        y: Any = layer.apply(variables, X)
        assert y.dtype == jnp.bfloat16 and variables["params"]["kernel"].dtype == jnp.float32
