"""The three passes of the convolution, in either body, against what JAX derives from its own.

Operands are multiples of 1/4 of magnitude at most 2, so that every sum is exact in float32.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from nnlab import kernels
from nnlab.kernels.convolution import convolve, convolve_filter_gradient, convolve_input_gradient
from nnlab.kernels.window import Window
from nnlab.ops.windows import window_of


def quarters(seed, *shape) -> Any:
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(np.float32) / 4


BODIES = ["xla", *(["native"] if "native" in kernels.status()["convolve"]["cpu"] else [])]


@pytest.fixture(params=BODIES)
def body(request):
    with kernels.use(request.param):
        yield


@functools.partial(jax.jit, static_argnames="window")
def passes(g, x, kernel, window):
    return (
        convolve(x, kernel, window),
        convolve_input_gradient(g, x, kernel, window),
        convolve_filter_gradient(g, x, kernel, window),
    )


@functools.partial(jax.jit, static_argnames="window")
def derived(g, x, kernel, window):
    def conv(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            window.strides,
            window.padding,
            rhs_dilation=window.dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    y, gradients = jax.vjp(conv, x, kernel)
    return y, *gradients(g)


def operands(shape, kernel_shape, window) -> Any:
    x, kernel = quarters(0, *shape), quarters(1, *kernel_shape)
    g = quarters(2, shape[0], *window.positions(shape[1:], kernel_shape), kernel_shape[3])
    return g, x, kernel


def test_golden(body):
    # Row [1, 3] after one zero, filter [0.5, -1]: [0 - 1, 0.5 - 3]. With g = [1, 2], x's
    # cotangents are 1 * -1 + 2 * 0.5 = 0 and 2 * -1 = -2, the filter's 0 + 2 * 1 and 1 + 2 * 3.
    window = Window(padding=((0, 0), (1, 0)))
    g, x = (jnp.array(a).reshape(1, 1, 2, 1) for a in ([1.0, 2.0], [1.0, 3.0]))
    kernel = np.asarray([0.5, -1.0], np.float32).reshape(1, 2, 1, 1)
    y, dx, dw = passes(g, x, kernel, window)
    assert np.ravel(y).tolist() == [-1, -2.5]
    assert (np.ravel(dx).tolist(), np.ravel(dw).tolist()) == ([0, -2], [2, 7])


@pytest.mark.slow
@pytest.mark.parametrize("body", BODIES)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.data())
def test_passes_equal_the_derived_ones(convolutions, body, data):
    shape, kernel_shape, options = data.draw(convolutions)
    window = window_of(shape, kernel_shape, **options)
    arrays = operands(shape, kernel_shape, window)
    with kernels.use(body):
        results = passes(*arrays, window)
    for ours, theirs in zip(results, derived(*arrays, window), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("argument", [0, 1, 2])
def test_nan_and_infinity_reach_what_the_sum_holds_and_no_more_than_in_the_derived_form(
    body, argument, value
):
    window = Window((2, 2), ((0, 1), (1, 0)), (1, 2))
    arrays = operands((2, 6, 7, 2), (3, 2, 2, 3), window)
    # The passes are linear in every operand: an indicator among ones shows what holds it.
    held = [np.ones_like(array) for array in arrays]
    held[argument] = np.zeros_like(held[argument])
    held[argument][0, 1, 1, 1] = 1
    arrays[argument][0, 1, 1, 1] = value
    every = zip(
        passes(*arrays, window), derived(*held, window), derived(*arrays, window), strict=True
    )
    reads = [(1, 2), (0, 2), (0, 1)]  # operands that a pass reads
    for (ours, holds, theirs), operand in zip(every, reads, strict=True):
        if argument not in operand:
            continue
        assert not np.isfinite(ours)[holds != 0].any()
        assert np.isfinite(ours)[np.isfinite(theirs)].all()


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_keep_the_derived_form(platform):
    window = Window((2, 2), ((1, 1), (1, 1)))
    arrays = operands((2, 6, 7, 2), (3, 3, 2, 3), window)

    def convolutions(function):
        lowered = function.trace(*arrays, window).lower(lowering_platforms=(platform,))
        lines = lowered.as_text().splitlines()
        return sorted(line.split("dim_numbers")[1] for line in lines if "dim_numbers" in line)

    assert len(convolutions(passes)) == 3
    assert convolutions(passes) == convolutions(derived)
