"""The binary body counts agreeing and disagreeing signs: integers, so every sum is exact."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.kernels.binary import binary_conv
from nnlab.kernels.window import POINT
from nnlab.ops.windows import window_of


def signs(seed, *shape):
    return np.random.default_rng(seed).choice([-1, 1], shape)


def counts(x, kernel, window):
    """Agreeing minus disagreeing, by XNOR, tap by tap; taps on padding are skipped."""
    n, height, width, _ = x.shape
    kh, kw, _, features = kernel.shape
    (sh, sw), ((top, bottom), (left, right)), (dh, dw) = window
    out_h = (height + top + bottom - (kh - 1) * dh - 1) // sh + 1
    out_w = (width + left + right - (kw - 1) * dw - 1) // sw + 1
    y = np.zeros((n, out_h, out_w, features), np.int64)
    for i, j, a, b in np.ndindex(out_h, out_w, kh, kw):
        row, column = i * sh + a * dh - top, j * sw + b * dw - left
        if 0 <= row < height and 0 <= column < width:
            agree = ~((x[:, row, column, :, None] > 0) ^ (kernel[a, b] > 0))
            y[:, i, j] += agree.sum(1) - (~agree).sum(1)
    return y


@pytest.mark.slow
@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_equals_counts_over_shapes_and_windows(convolutions, data):
    shape, kernel_shape, options = data.draw(convolutions)
    window = window_of(shape, kernel_shape, **options)
    x, kernel = signs(0, *shape), signs(1, *kernel_shape)
    y = binary_conv(np.float32(x), np.float32(kernel), window=window)
    np.testing.assert_array_equal(y, counts(x, kernel, window))


@pytest.mark.parametrize("dtype", [jax.numpy.bfloat16, jax.numpy.float16])
def test_sums_are_taken_in_float32_and_rounded_once(dtype):
    # Partial sums up to 3000 would stick at 256 in bfloat16 and lose units above 2048 in float16.
    x, kernel = np.sort(signs(0, 3, 1, 1, 3001)), np.sort(signs(1, 1, 1, 3001, 4), axis=2)
    y = binary_conv(x.astype(dtype), kernel.astype(dtype), window=POINT)
    expected = counts(x, kernel, POINT)
    assert np.abs(expected).min() > 2048
    np.testing.assert_array_equal(y, expected.astype(dtype))
