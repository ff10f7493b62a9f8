"""Zeros between pixels, and the padding of a transposed convolution as of `jax.lax`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nnlab.ops.convolution import conv
from nnlab.ops.transposed import spread, transposed_padding


def test_spread_by_hand():
    x = np.asarray([1, 2, 3, 4], np.float32).reshape(1, 2, 2, 1)
    wide = [[1, 0, 0, 2], [0, 0, 0, 0], [3, 0, 0, 4]]
    by = jax.jit(spread, static_argnums=1)
    assert np.asarray(by(x, (2, 3)))[0, :, :, 0].tolist() == wide
    np.testing.assert_array_equal(by(x, 1), x)
    assert np.asarray(by(x[0], 3))[:, :, 0].tolist() == [[1, 0, 0, 2], [3, 0, 0, 4]]


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    "stride", [2, 3, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 5))]
)
def test_padding_is_that_of_lax(padding, stride):
    rng = np.random.default_rng(0)
    x = np.asarray(rng.integers(-4, 5, (1, 4, 2)), np.float32)
    kernels = [np.asarray(rng.integers(-4, 5, (k, 2, 3)), np.float32) for k in (1, 2, 3, 4)]

    @jax.jit
    def both(x, kernels):
        results = []
        for kernel in kernels:
            for dilation in (1, 2):
                pads = transposed_padding(kernel.shape[:1], stride, padding, dilation)
                ours = conv(spread(x, stride), kernel, padding=pads, kernel_dilation=dilation)
                dilations: Any = {"rhs_dilation": (dilation,)}
                results.append(
                    (ours, lax.conv_transpose(x, kernel, (stride,), padding, **dilations))
                )
                span = max((kernel.shape[0] - 1) * dilation + 1, stride)
                assert ours.shape[1] == (4 * stride if padding == "SAME" else 3 * stride + span)
        return results

    for ours, expected in both(x, kernels):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("padding", ["FULL", 2, ((1, 0), (0, 3))])
def test_other_paddings_stay_as_they_are(padding):
    assert transposed_padding((3, 2), (2, 1), padding) == padding


def test_errors_name_what_was_given():
    with pytest.raises(ValueError, match=r"^strides must be one or two positive .*, not \(2,\)\."):
        spread(jnp.ones((1, 3, 3, 1)), (2,))
    with pytest.raises(ValueError, match=r"^strides must be one positive .*, not 0\."):
        transposed_padding((3,), 0, "SAME")
    fraction: Any = 1.5
    with pytest.raises(ValueError, match=r"^kernel_dilation must be one or two .*, not 1\.5\."):
        transposed_padding((3, 3), 1, "SAME", fraction)
