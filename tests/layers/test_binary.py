"""Binary layers: their latent parameters, and that they are the op on the signs, to the bit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.layers import BinaryConv, BinaryDense
from nnlab.ops.binary import (
    binary_conv,
    binary_dense,
    binary_weights,
    sign_ste,
)


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


IMAGES, VECTORS = normal(2, 7, 6, 3), normal(2, 4, 5)
CASES = [(BinaryConv(4, (3, 2)), IMAGES), (BinaryDense(4), VECTORS)]


@pytest.mark.parametrize(("layer", "x"), CASES)
def test_parameters(layer, x):
    shape = (3, 2, 3, 4) if x is IMAGES else (5, 4)
    for dtype in (jnp.float32, jnp.bfloat16):
        layer = layer.clone(use_bias=True, param_dtype=dtype)
        params = jax.eval_shape(layer.init, jax.random.key(0), x)["params"]
        assert params.keys() == {"binary_kernel", "bias"}
        assert params["binary_kernel"].shape == shape and params["bias"].shape == (4,)
        assert params["binary_kernel"].dtype == params["bias"].dtype == dtype
    assert "bias" not in jax.eval_shape(CASES[0][0].init, jax.random.key(0), IMAGES)["params"]


@pytest.mark.parametrize(
    ("layer", "x", "fans"),
    [
        (BinaryConv(90, (3, 3)), jnp.ones((1, 4, 4, 110)), 9 * (110 + 90)),
        (BinaryDense(300), jnp.ones((1, 300)), 300 + 300),
    ],
)
def test_weights_start_as_glorot_uniform(layer, x, fans):
    w = np.asarray(layer.init(jax.random.key(0), x)["params"]["binary_kernel"], np.float64)
    limit = np.sqrt(6 / fans)
    # Of 89,100 or 90,000 uniform numbers the largest is below 0.999 of the limit once in 1e39.
    assert 0.999 * limit < np.abs(w).max() <= limit * (1 + 2**-23)
    # Five standard errors: variances of u and u^2 on [-1, 1] are 1/3 and 4/45.
    assert abs(w.mean()) < 5 * limit * np.sqrt(1 / 3 / w.size)
    assert abs(np.square(w / limit).mean() - 1 / 3) < 5 * np.sqrt(4 / 45 / w.size)


def test_golden_value():
    layer: Any = BinaryDense(2)
    params = {"binary_kernel": jnp.array([[0.1, -0.1], [0.0, -0.9], [-3.0, -0.0]])}
    # signs + - / + - / - +; of x + - +
    assert layer.apply({"params": params}, jnp.array([0.2, -7.0, 0.0])).tolist() == [-1, 1]


@pytest.mark.parametrize("quantizer", [sign_ste, binary_weights, jnp.tanh])
@pytest.mark.parametrize("op", [binary_conv, binary_dense])
def test_values_and_gradients_are_those_of_the_op_on_the_signs(op, quantizer):
    options = {"strides": (2, 1), "padding": ((1, 0), (0, 2)), "kernel_dilation": 2}
    options = options if op is binary_conv else {}
    quantizers = {"kernel_quantizer": quantizer, "input_quantizer": jnp.sin}
    if quantizer is sign_ste:
        quantizers = {}  # the default of both
    if op is binary_conv:
        layer, x, kernel = (
            BinaryConv(4, (3, 2), **options, **quantizers),
            IMAGES,
            normal(3, 2, 3, 4),
        )
    else:
        layer, x, kernel = BinaryDense(4, **quantizers), VECTORS, normal(5, 4)
    # A third of the normal weights lies beyond the window of the straight-through rule.

    def expected(x, w):
        return op(quantizers.get("input_quantizer", sign_ste)(x), quantizer(w), **options)

    apply: Any = layer.apply
    y, pull = jax.vjp(lambda x, w: apply({"params": {"binary_kernel": w}}, x), x, kernel)
    y_op, pull_op = jax.vjp(expected, x, kernel)
    np.testing.assert_array_equal(y, y_op)
    g = normal(*y.shape)
    for ours, theirs in zip(pull(g), pull_op(g), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("layer", "x"), CASES)
def test_bfloat16_computes_in_bfloat16_from_float32_parameters(layer, x):
    layer = layer.clone(use_bias=True, dtype=jnp.bfloat16)
    init = jax.eval_shape(layer.init, jax.random.key(0), x)["params"]
    assert {leaf.dtype.name for leaf in init.values()} == {"float32"}
    kernel, bias = normal(*init["binary_kernel"].shape), jnp.array([1.0, 2.0, -3.0, 4.0])
    params = {"binary_kernel": kernel, "bias": bias}
    y = layer.apply({"params": params}, x)
    assert y.dtype == jnp.bfloat16
    # At most 18 terms of one unit: integers that bfloat16 holds exactly.
    expected = layer.clone(dtype=jnp.float32).apply({"params": params}, x)
    np.testing.assert_array_equal(y.astype(jnp.float32), expected)


@pytest.mark.parametrize(
    ("layer", "x", "words"),
    [
        (BinaryConv(4, (3, 3)), IMAGES[0], r"binary_conv expects x .* not shapes \(7, 6, 3\)"),
        (BinaryConv(4, (3, 3), strides=0), IMAGES, "strides must be .* not 0"),
    ],
)
def test_errors_name_what_was_given(layer, x, words):
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(layer.init, jax.random.key(0), x)
