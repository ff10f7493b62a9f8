"""Adder bodies against loops over every position and tap.

Operands are multiples of 1/4 of magnitude at most 2: products are multiples of 1/16, sums of
thousands of them are exact in float32 in any order, and every comparison asks for equality. Ties
and the edges of HardTanh occur all the time.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab import kernels
from nnlab.kernels import adder
from nnlab.kernels.window import POINT, Window
from nnlab.ops.windows import window_of

SIGN, CLIP = np.sign, functools.partial(np.clip, a_min=-1, a_max=1)


def quarters(seed, *shape) -> Any:
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(np.float32) / 4


def operands(shape, kernel_shape, window, seed=0) -> Any:
    """g, x and kernel; the size of g is that of XLA's convolution."""
    strides, padding, dilation = window
    out = jax.eval_shape(
        lambda x, w: jax.lax.conv_general_dilated(
            x,
            w,
            strides,
            padding,
            rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ),
        jnp.zeros(shape),
        jnp.zeros(kernel_shape),
    )
    return [quarters(seed + i, *s) for i, s in enumerate((out.shape, shape, kernel_shape))]


def loops(g, x, kernel, window):
    """Value, input gradients by clip and by sign, filter gradient by sign; in float64."""
    g, x, kernel = (a.astype(np.float64) for a in (g, x, kernel))
    (sh, sw), pads, (dh, dw) = window
    padded = np.pad(x, ((0, 0), *pads, (0, 0)))
    y, filter_sign = np.zeros(g.shape), np.zeros(kernel.shape)
    input_clip, input_sign = np.zeros(padded.shape), np.zeros(padded.shape)
    for i, j in np.ndindex(g.shape[1:3]):
        for a, b in np.ndindex(kernel.shape[:2]):
            row, column = i * sh + a * dh, j * sw + b * dw
            d = padded[:, row, column, :, None] - kernel[a, b]  # [batch, in, out]
            cotangents = g[:, i, j, None, :]
            y[:, i, j] -= np.abs(d).sum(1)
            input_clip[:, row, column] += (cotangents * CLIP(-d)).sum(2)
            input_sign[:, row, column] += (cotangents * SIGN(-d)).sum(2)
            filter_sign[a, b] += (cotangents * SIGN(d)).sum(0)
    (top, _), (left, _) = pads
    inside = np.s_[:, top : top + x.shape[1], left : left + x.shape[2]]
    return y, input_clip[inside], input_sign[inside], filter_sign


@functools.partial(jax.jit, static_argnames="window")
def bodies(g, x, kernel, window):
    return (
        adder.adder_conv(x, kernel, window=window),
        adder.adder_conv_input_gradient(g, x, kernel, rule="clip", window=window),
        adder.adder_conv_input_gradient(g, x, kernel, rule="sign", window=window),
        adder.adder_conv_filter_gradient(g, x, kernel, window=window),
    )


def assert_equal_to_loops(arrays, window):
    g, x, kernel = arrays
    results = bodies(g, x, kernel, window)
    for result, expected in zip(results, loops(g, x, kernel, window), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_golden():
    # One pixel of padding before the row [1, 3], filter [0.5, -1], no step beyond the row:
    # windows [0, 1] and [1, 3] give -(0.5 + 2) = -2.5 and -(0.5 + 4) = -4.5.
    # With g = [1, 2]: clip(w - x) is [0.5 (padding), -1] and [-0.5, -1], so that x's cotangents
    # are 1 * -1 + 2 * -0.5 = -2 and 2 * -1 = -2; by sign, -1 - 2 = -3 and -2.
    # sign(x - w) is [-1, 1] and [1, 1], so that w's are -1 + 2 = 1 and 1 + 2 = 3.
    window = Window(padding=((0, 0), (1, 0)))
    g, x = (np.array(a, np.float32).reshape(1, 1, 2, 1) for a in ([1, 2], [1, 3]))
    kernel = np.array([0.5, -1], np.float32).reshape(1, 2, 1, 1)
    results = bodies(g, x, kernel, window)
    assert [np.ravel(r).tolist() for r in results] == [[-2.5, -4.5], [-2, -2], [-3, -2], [1, 3]]


@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.data())
def test_equals_loops_over_shapes_and_windows(convolutions, data):
    shape, kernel_shape, options = data.draw(convolutions)
    window = window_of(shape, kernel_shape, **options)
    assert_equal_to_loops(operands(shape, kernel_shape, window), window)


@pytest.mark.slow
@pytest.mark.parametrize("channels, features", [(31, 33), (33, 1), (1, 65), (64, 32)])
def test_equals_loops_around_the_size_of_a_block(channels, features):
    window = Window(padding=((1, 1), (0, 1)))
    shapes = (2, 3, 4, channels), (3, 2, channels, features)
    assert_equal_to_loops(operands(*shapes, window), window)


@pytest.mark.parametrize("positions", [33, 2048 + 1])
def test_filter_gradient_sums_all_positions_of_every_lane(positions):
    g, x, kernel = operands((positions, 1, 1, 2), (1, 1, 2, 3), POINT)
    result = adder.adder_conv_filter_gradient(g, x, kernel, window=POINT)
    np.testing.assert_array_equal(result, loops(g, x, kernel, POINT)[3])


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("argument", ["g", "x", "kernel"])
def test_nan_and_infinity_come_out_where_loops_have_them(argument, value):
    # The first pixel for g and x. For the kernel a tap that every pixel meets: past the edge a
    # tap meets cotangents of zero, which a NaN turns into NaN.
    window = Window((2, 1), ((1, 0), (1, 1)), (1, 1))
    g, x, kernel = operands((2, 5, 4, 2), (3, 3, 2, 3), window)
    array, index = {"g": (g, (0, 0)), "x": (x, (0, 0)), "kernel": (kernel, (1, 1))}[argument]
    array[(*index, 0, 0)] = value
    with np.errstate(invalid="ignore"):
        assert_equal_to_loops((g, x, kernel), window)


def test_float64_stays_float64():
    window = Window((1, 2), ((1, 1), (1, 1)))
    shapes = (2, 4, 5, 3), (3, 3, 3, 2)
    g, x, kernel = (a.astype(np.float64) / 3 for a in operands(*shapes, window))
    with jax.enable_x64(True):
        results = bodies(g, x, kernel, window)
    for result, expected in zip(results, loops(g, x, kernel, window), strict=True):
        # Sums of n <= 27 terms below 4/3: off by less than n * eps * n * 4/3 = 2.2e-13.
        np.testing.assert_allclose(result, expected, rtol=0, atol=2.2e-13)


BODIES = ["xla", *(["native"] if "native" in kernels.status()["adder_conv"]["cpu"] else [])]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)])
def test_narrow_floats_are_summed_in_float32_and_rounded_once(body, dtype):
    # Sums of 900 terms: in bfloat16 one by one, they would stick where a unit is worth 2 or more.
    g, x, kernel = operands((3, 10, 10, 100), (3, 3, 100, 4), Window())
    with kernels.use(body):
        results = bodies(g.astype(dtype), x.astype(dtype), kernel.astype(dtype), Window())
    for result, expected in zip(results, loops(g, x, kernel, Window()), strict=True):
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, expected.astype(dtype))
