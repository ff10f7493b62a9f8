"""Signs, their straight-through rules, and products of signs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.ops.binary import (
    binary_conv,
    binary_dense,
    binary_weights,
    sign_ste,
    stochastic_binary_weights,
)
from nnlab.testing import check_gradient_rule, image_windows

THOROUGH = pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.slow)])
INF, NAN = np.inf, np.nan


def sign(x):
    return np.where(x >= 0, 1.0, -1.0)


def signs(seed, *shape, dtype=jnp.float32) -> Any:
    return np.asarray(np.random.default_rng(seed).choice([-1, 1], shape), dtype)


def weights() -> Any:
    """Dense around the edges -1, 0 and 1, without those themselves."""
    return np.asarray(np.linspace(-1.5, 1.5, 14).reshape(2, 7), np.float32)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_sign_table(dtype):
    tiny, eps = float(jnp.finfo(dtype).tiny), float(jnp.finfo(dtype).eps)
    table = [  # x, sign, whether the cotangent passes
        (0.0, 1, True),
        (-0.0, 1, True),
        (tiny, 1, True),
        (-tiny, -1, True),
        (1.0, 1, True),
        (-1.0, -1, True),
        (1 + eps, 1, False),
        (-1 - eps, -1, False),
        (INF, 1, False),
        (-INF, -1, False),
        (NAN, NAN, False),
    ]
    x, expected, passes = map(np.array, zip(*table, strict=True))

    @jax.jit
    def both(x):
        y, pull = jax.vjp(sign_ste, x)
        return y, *pull(jnp.full_like(y, 3))

    y, dx = both(x.astype(dtype))
    assert y.dtype == dx.dtype == dtype
    np.testing.assert_array_equal(np.asarray(y, float), expected)
    np.testing.assert_array_equal(np.asarray(dx, float), 3 * passes)


@THOROUGH
def test_sign_rule(thorough):
    check_gradient_rule(
        sign_ste,
        [weights()],
        value=sign,
        potentials=[lambda x: jnp.clip(x, -1, 1)],
        rtol=0,
        atol=0,
        thorough=thorough,
    )


@THOROUGH
def test_binary_weights_rule(thorough):
    exact: dict[str, Any] = dict(rtol=0, atol=0, thorough=thorough)
    check_gradient_rule(binary_weights, [weights()], value=sign, potentials=[lambda w: w], **exact)
    x = jnp.array([0.0, -0.0, INF, -INF, NAN])
    np.testing.assert_array_equal(binary_weights(x), [1, 1, 1, -1, NAN])


@THOROUGH
def test_stochastic_weights_rule(thorough):
    key = jax.random.key(0)

    def value(key, w):
        uniform = 1 - jax.random.uniform(key, w.shape, jnp.float32)
        return np.where(uniform <= np.clip((w + 1) / 2, 0, 1), 1.0, -1.0)

    check_gradient_rule(
        stochastic_binary_weights,
        [key, weights()],
        value=value,
        potentials=[None, lambda key, w: w],
        rtol=0,
        atol=0,
        thorough=thorough,
    )


@pytest.mark.parametrize("dtype", [pytest.param(jnp.float32, marks=pytest.mark.slow), jnp.bfloat16])
def test_stochastic_weights_have_the_mean_of_clipped_weights(dtype):
    means, n = np.array([-1.5, -1, -0.75, 0, 0.25, 1, 1.5]), 200_000
    w = np.broadcast_to(means.astype(dtype), (n, 7))
    draws = jax.jit(stochastic_binary_weights)(jax.random.key(1), w)
    assert draws.dtype == dtype
    values = np.asarray(draws, np.float64)
    assert np.isin(values, [-1, 1]).all()
    expected = np.clip(means, -1, 1)
    # A mean of n signs with mean m has the standard deviation sqrt((1 - m^2) / n): none at +-1,
    # where the draws are certain. Five of them are allowed.
    assert (np.abs(values.mean(0) - expected) <= 5 * np.sqrt((1 - expected**2) / n)).all()


def test_stochastic_weights_are_a_function_of_the_key():
    w = np.asarray([INF, -INF, NAN, *[0] * 61], np.float32)
    draw = jax.jit(stochastic_binary_weights)
    first, again, other = (np.asarray(draw(jax.random.key(k), w)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first[3:] != other[3:]).any()
    np.testing.assert_array_equal(first[:3], [1, -1, NAN])


def conv_sum(x, kernel, **options):
    return (image_windows(x, kernel.shape, **options)[..., None] * kernel).sum((3, 4, 5))


def test_golden():
    # Row [+1, -1], filter [+1, +1, -1] between zeros: 0 + 1 + 1 = 2 and 1 - 1 + 0 = 0. The padding
    # adds nothing: counted as a sign it would give an odd number.
    x = np.asarray([1.0, -1.0], np.float32).reshape(1, 1, 2, 1)
    kernel = np.asarray([1.0, 1.0, -1.0], np.float32).reshape(1, 3, 1, 1)
    assert np.ravel(jax.jit(binary_conv)(x, kernel)).tolist() == [2, 0]


@pytest.mark.slow
def test_products_of_signs():
    def dense(x, kernel):
        return x @ kernel

    x, kernel = signs(0, 5, 7), signs(1, 7, 4)
    errors = [
        ([x, kernel.T], r"^binary_dense needs as many inputs .* 7 in x .* 4 in kernel"),
        ([x, kernel[0]], r"^binary_dense expects x \[\.\.\., in\].*\(5, 7\) and \(4,\)"),
        ([x > 0, kernel], "^binary_dense expects a floating x, not bool"),
    ]
    check_gradient_rule(
        binary_dense,
        [x, kernel],
        value=dense,
        potentials=[dense, dense],
        errors=errors,
        rtol=0,
        atol=0,
    )
    options = dict(strides=(2, 1), padding=((1, 0), (2, 1)), kernel_dilation=(2, 1))
    conv = functools.partial(conv_sum, **options)
    x, kernel = signs(0, 2, 5, 4, 3), signs(1, 2, 3, 3, 2)
    check_gradient_rule(
        functools.partial(binary_conv, **options),
        [x, kernel],
        value=conv,
        potentials=[conv, conv],
        errors=[([x[0], kernel], r"^binary_conv expects .*\(5, 4, 3\) and \(2, 3, 3, 2\)")],
        rtol=0,
        atol=0,
    )


@pytest.mark.slow
@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.data())
def test_conv_is_an_exact_integer_over_shapes_windows_and_dtypes(convolutions, data):
    shape, kernel_shape, options = data.draw(convolutions)
    dtype = data.draw(st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16]))
    x, kernel = signs(0, *shape, dtype=dtype), signs(1, *kernel_shape, dtype=dtype)
    y = jax.jit(functools.partial(binary_conv, **options))(x, kernel)
    assert y.dtype == dtype
    sums = jax.jit(functools.partial(conv_sum, **options))
    expected = sums(x.astype(int), kernel.astype(int))
    np.testing.assert_array_equal(y, expected)  # at most 100: exact in every dtype


def test_dense_takes_any_leading_axes_and_empty_ones():
    x, kernel = signs(0, 2, 3, 5), signs(1, 5, 4)
    expected, dense = np.asarray(x) @ np.asarray(kernel), jax.jit(binary_dense)
    np.testing.assert_array_equal(dense(x, kernel), expected)
    np.testing.assert_array_equal(dense(x[0, 0], kernel), expected[0, 0])
    for shape, features in (((0, 3), 2), ((2, 0), 3), ((2, 3), 0)):
        y = dense(np.ones(shape, np.float32), np.ones((shape[-1], features), np.float32))
        np.testing.assert_array_equal(y, np.full((shape[0], features), shape[-1]))
