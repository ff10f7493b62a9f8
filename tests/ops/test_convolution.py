"""The convolution equals XLA's in value and gradients, in every window and inside loops.

True convolution equals SciPy's.

Operands are multiples of 1/4 of magnitude at most 2, so that all sums are exact in float32.
"""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from nnlab.ops.adder import adder_conv
from nnlab.ops.convolution import conv, flipped, true_conv
from nnlab.testing import check_gradient_rule


def quarters(seed, *shape, dtype=jnp.float32) -> Any:
    return np.asarray(np.random.default_rng(seed).integers(-8, 9, shape) / 4, dtype)


def xla(x, kernel, *, strides=1, padding="SAME", kernel_dilation=1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        np.broadcast_to(strides, 2).tolist(),
        padding,
        rhs_dilation=np.broadcast_to(kernel_dilation, 2).tolist(),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@functools.partial(jax.jit, static_argnums=0)
def passes(op, x, kernel, g):
    y, pull = jax.vjp(op, x, kernel)
    return y, *pull(g)


def test_golden():
    # Row [1, 3], filter [0.5, -1], one zero after it: [0.5 - 3, 1.5]. With g = [1, 2]:
    # dx = [0.5, -1 + 1] and dw = [1 + 6, 3].
    x, kernel = (
        np.asarray([1.0, 3.0], np.float32).reshape(1, 1, 2, 1),
        np.asarray([0.5, -1], np.float32).reshape(1, 2, 1, 1),
    )
    results = passes(conv, x, kernel, np.asarray([1.0, 2.0], np.float32).reshape(x.shape))
    assert [np.ravel(r).tolist() for r in results] == [[-2.5, 1.5], [0.5, 0], [7, 3]]


@pytest.mark.slow
def test_gradients_dtypes_transformations_and_errors():
    options = dict(strides=(2, 1), padding=((1, 0), (2, 1)), kernel_dilation=(2, 1))
    reference = functools.partial(xla, **options)
    x, kernel = quarters(0, 2, 5, 4, 2), quarters(1, 2, 3, 2, 3)
    check_gradient_rule(
        functools.partial(conv, **options),
        [x, kernel],
        value=reference,
        potentials=[reference, reference],
        errors=[
            ([x[0], kernel], r"^conv expects .*\(5, 4, 2\) and \(2, 3, 2, 3\)"),
            ([x[..., :1], kernel], "^conv needs as many inputs .* 1 in x .* 2 in kernel"),
            ([x[:, :1], kernel], "^the window spans 3 pixels of height, .* has 2"),
            ([x.astype("int32"), kernel], "^conv expects a floating x, not int32"),
        ],
        rtol=0,
        atol=0,
    )


@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.data())
def test_equals_xla_over_shapes_windows_and_dtypes(convolutions, data):
    shape, kernel_shape, options = data.draw(convolutions)
    dtypes = data.draw(st.tuples(*[st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16])] * 2))
    x, kernel = quarters(0, *shape, dtype=dtypes[0]), quarters(1, *kernel_shape, dtype=dtypes[1])
    ours, theirs = (functools.partial(op, **options) for op in (conv, xla))
    out = jax.eval_shape(ours, x, kernel)
    g = quarters(2, *out.shape, dtype=out.dtype)
    wide = [a.astype(jnp.float32) for a in (x, kernel, g)]
    expected = jax.jit(functools.partial(passes, theirs))(*wide)
    results = jax.jit(functools.partial(passes, ours))(x, kernel, g)
    dtypes = jnp.promote_types(*dtypes), *dtypes
    for result, dtype, exact in zip(results, dtypes, expected, strict=True):
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, exact.astype(dtype))


@pytest.mark.slow
@pytest.mark.parametrize("strides", [1, 2])
def test_gradients_inside_a_loop_are_the_same_and_compile_once(strides):
    chex.clear_trace_counter()
    xs, kernel = quarters(0, 3, 4, 9, 9, 3), quarters(1, 3, 3, 3, 5)
    ours, theirs = (functools.partial(op, strides=strides) for op in (conv, xla))
    gs = quarters(2, 3, *jax.eval_shape(ours, xs[0], kernel).shape)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def in_loop(xs, kernel, gs):
        def step(total, batch):
            x, g = batch
            y, dx, dw = passes(ours, x, kernel, g)
            return total + dw, (y, dx)

        return jax.lax.scan(step, jnp.zeros_like(kernel), (xs, gs))

    for factor in (1, 2):
        total, (ys, dxs) = in_loop(factor * xs, kernel, gs)
        expected = [passes(theirs, factor * x, kernel, g) for x, g in zip(xs, gs, strict=True)]
        y, dx, dw = (jnp.stack(results) for results in zip(*expected, strict=True))
        chex.assert_trees_all_equal((ys, dxs, total), (y, dx, dw.sum(0)))


def test_true_convolution_is_that_of_scipy_and_correlation_too():
    x, kernel = quarters(0, 7, 6), quarters(1, 3, 4)
    images, filters = x[None, :, :, None], kernel[:, :, None, None]
    for mode in ("full", "valid"):
        for ours, theirs in ((true_conv, signal.convolve2d), (conv, signal.correlate2d)):
            y = jax.jit(functools.partial(ours, padding=mode.upper()))(images, filters)
            np.testing.assert_array_equal(np.asarray(y)[0, :, :, 0], theirs(x, kernel, mode))
    sequence, taps = x[:1, :, None], kernel[0, :, None, None]
    for ours, theirs in ((true_conv, np.convolve), (conv, np.correlate)):
        y = jax.jit(functools.partial(ours, padding="FULL"))(sequence, taps)
        np.testing.assert_array_equal(np.ravel(y), theirs(x[0], kernel[0], "full"))


def test_true_convolution_in_full_commutes_and_an_adders_does_not():
    x, kernel = quarters(0, 1, 7, 1), quarters(1, 4, 1, 1)
    swapped = kernel.reshape(1, 4, 1), x.reshape(7, 1, 1)
    true = jax.jit(functools.partial(true_conv, padding="FULL"))
    y = true(x, kernel)
    np.testing.assert_array_equal(y, true(*swapped))
    assert not np.array_equal(y, jax.jit(functools.partial(conv, padding="FULL"))(x, kernel))
    adder = jax.jit(functools.partial(true_conv, padding="FULL", product=adder_conv))
    assert not np.array_equal(adder(x, kernel), adder(*swapped))


@pytest.mark.parametrize(("axes", "product"), [(1, conv), (2, adder_conv), (3, conv)])
def test_true_convolution_goes_through_the_kernel_backwards(axes, product):
    x, kernel = quarters(0, 2, *(5, 4, 3)[:axes], 2), quarters(1, *(3, 2, 2)[:axes], 2, 3)
    backwards = kernel[tuple([slice(None, None, -1)] * axes)]
    options: Any = dict(strides=(2, 1, 1)[:axes], kernel_dilation=(1, 2, 1)[:axes])
    expected = jax.jit(functools.partial(product, **options))(x, backwards)
    ours = jax.jit(functools.partial(true_conv, product=product, **options))(x, kernel)
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(flipped(kernel), backwards)


def test_true_adder_convolution_by_hand():
    # Steps [1, 3], filter [0.5, -1] read from its end: -(|1 + 1| + |3 - 0.5|) = -4.5.
    x, kernel = jnp.array([[[1.0], [3.0]]]), jnp.array([[[0.5]], [[-1.0]]])
    assert true_conv(x, kernel, padding="VALID", product=adder_conv).item() == -4.5
    assert adder_conv(x, kernel, padding="VALID").item() == -(0.5 + 4)


@pytest.mark.parametrize(
    "shape, kernel_shape",
    [((0, 3, 3, 2), (2, 2, 2, 4)), ((2, 3, 3, 0), (2, 2, 0, 4)), ((2, 3, 3, 2), (2, 2, 2, 0))],
)
def test_empty(shape, kernel_shape):
    x, kernel = np.ones(shape, np.float32), np.ones(kernel_shape, np.float32)
    y, dx, dw = passes(conv, x, kernel, np.ones((shape[0], 3, 3, kernel_shape[3]), np.float32))
    assert not y.any() and not dx.any() and not dw.any()
