"""The shift-and-add block: its parameters, and its value from both of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.costs import count, stored_bytes
from nnlab.layers import ShiftAddConv, ShiftAddDense
from nnlab.ops.adder import adder_conv
from nnlab.testing import image_windows


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


IMAGES, VECTORS = normal(2, 5, 4, 3), normal(2, 4, 5)


@pytest.mark.parametrize(
    ("layer", "x", "shapes"),
    [
        (ShiftAddConv(4, (3, 2), strides=2), IMAGES, [(3, 2, 3, 4), (3, 2, 4, 4)]),
        (ShiftAddDense(4), VECTORS, [(5, 4), (4, 4)]),
    ],
)
@pytest.mark.parametrize("use_bias", [False, True])
def test_parameters(layer, x, shapes, use_bias):
    layer = layer.clone(use_bias=use_bias, dtype=jnp.bfloat16)
    y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    bias = {"bias": (4,)} if use_bias else {}
    expected = dict(zip(("kernel", "adder_kernel"), shapes, strict=True)) | bias
    assert jax.tree.map(jnp.shape, variables["params"]) == expected
    assert y.dtype == jnp.bfloat16


def powers_of_two(w):
    """Of 5 bits: exponents from -14 to 0."""
    return np.sign(w) * 2.0 ** np.clip(np.round(np.log2(np.abs(w))), -14, 0)


def test_a_convolution_by_powers_of_two_and_then_an_adder():
    layer: Any = ShiftAddConv(4, (3, 2), strides=2, padding="VALID", kernel_dilation=2)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), IMAGES)["params"]
    params = {name: normal(*leaf.shape) for name, leaf in shapes.items()}
    options: Any = dict(strides=2, padding="VALID", kernel_dilation=2)
    windows = np.float64(image_windows(IMAGES, (3, 2), **options))
    shifted = np.tensordot(windows, powers_of_two(np.float64(params["kernel"])), 3)
    expected = adder_conv(jnp.float32(shifted), params["adder_kernel"])
    # Sums of 18 products below 16, then 24 distances to them.
    y = layer.apply({"params": params}, IMAGES)
    np.testing.assert_allclose(y, expected, rtol=0, atol=24 * 18 * 16 * 2**-23)

    dense: Any = ShiftAddDense(4)
    params = {"kernel": normal(5, 4), "adder_kernel": normal(4, 4)}
    shifted = np.float64(VECTORS) @ powers_of_two(np.float64(params["kernel"]))
    expected = -np.abs(shifted[..., None] - np.float64(params["adder_kernel"])).sum(-2)
    y = dense.apply({"params": params}, VECTORS)
    np.testing.assert_allclose(y, expected, rtol=0, atol=4 * 5 * 16 * 2**-23)


def test_counts_and_bytes():
    layer = ShiftAddConv(4, (3, 3), strides=2, padding=((1, 1), (1, 1)))
    variables = jax.eval_shape(layer.init, jax.random.key(0), IMAGES)
    counts = count(layer.apply, variables, IMAGES)
    # 3 by 2 outputs of 27 terms by shifts, then of 36 distances.
    shifts, distances = 2 * 6 * 4 * 27, 2 * 6 * 4 * 36
    assert counts.bit_operations == {"int32": shifts}
    assert counts.additions == {"float32": shifts + 2 * distances}
    assert not counts.multiplications and not counts.other and not counts.unknown
    # 108 weights in 5 bits, 67.5 bytes rounded up, and 144 in 32.
    assert stored_bytes(layer.apply, variables, IMAGES) == 68 + 4 * 144
