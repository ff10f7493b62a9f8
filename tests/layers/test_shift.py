"""DeepShift-PS layers: their parameters, and their products against those of the real weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.costs import count, stored_bytes
from nnlab.layers import ShiftPSConv, ShiftPSDense
from nnlab.ops.shift import shift_ps_weights

X = jnp.asarray(np.random.default_rng(0).integers(-8, 9, (2, 5, 4, 3)) / 4, jnp.float32)


def test_conv():
    layer = ShiftPSConv(6, (3, 2), strides=2, padding="VALID", use_bias=True, bits=4)
    y, variables = layer.init_with_output(jax.random.key(0), X)
    params: Any = variables["params"]
    shapes = {"shift_exponent_kernel": (3, 2, 3, 6), "shift_sign_kernel": (3, 2, 3, 6)}
    assert jax.tree.map(jnp.shape, params) == shapes | {"bias": (6,)}
    weights = shift_ps_weights(*(params[name] for name in shapes), bits=4)
    expected = jax.lax.conv_general_dilated(
        X, weights, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_array_equal(y, expected)  # multiples of 2^-8 below 2^5: exact


def test_dense_takes_any_leading_axes():
    layer = ShiftPSDense(6, use_bias=True, bits=4)
    y, variables = layer.init_with_output(jax.random.key(0), X)
    params: Any = variables["params"]
    names = ("shift_exponent_kernel", "shift_sign_kernel")
    weights = shift_ps_weights(*(params[name] for name in names), bits=4)
    np.testing.assert_array_equal(y, X @ weights)


def test_exponents_and_signs_start_evenly_over_their_ranges():
    params = ShiftPSDense(100).init(jax.random.key(0), jnp.ones(100))["params"]
    # 10,000 even numbers come closer to an end than a hundredth of the range, with certainty.
    for name, low, high in (("shift_exponent_kernel", -14, 0), ("shift_sign_kernel", -1, 1)):
        w, slack = np.asarray(params[name]), (high - low) / 100
        assert low <= w.min() < low + slack and high - slack < w.max() <= high
        # The mean has a standard deviation of range / sqrt(12 n), range / 346.
        assert abs(w.mean() - (low + high) / 2) < 5 * (high - low) / 346


def test_dtype_and_costs():
    layer = ShiftPSConv(6, (1, 1), dtype=jnp.bfloat16)
    y, variables = layer.init_with_output(jax.random.key(0), X)
    assert y.dtype == jnp.bfloat16
    assert stored_bytes(layer.apply, variables, X) == 12  # 18 weights of 5 bits are 90 bits
    counts = count(layer.apply, variables, X)
    assert counts.bit_operations == {"int32": 720}  # 40 positions of 3 terms and 6 filters
    assert counts.additions == {"bfloat16": 720}
    assert not counts.multiplications and not counts.other
