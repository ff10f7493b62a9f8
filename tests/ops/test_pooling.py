"""Maximum pooling against XLA's, in value and gradient, with ties, remainders and NaN."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.ops.pooling import max_pool
from nnlab.testing import check_gradient_rule


def few_values(seed, *shape):
    """Multiples of 1/4 between -1/2 and 1/2: most windows have ties."""
    return jnp.asarray(np.random.default_rng(seed).integers(-2, 3, shape) / 4, jnp.float32)


def passes(op, x, g):
    y, pull = jax.vjp(op, x)
    return y, *pull(g)


def test_golden():
    # Windows [1, 3; 3, 2] and [0, 0; 0, 0]: the first 3 and the first 0 get the cotangents.
    x = jnp.array([[1.0, 3, 0, 0], [3, 2, 0, 0]]).reshape(1, 2, 4, 1)
    y, dx = passes(max_pool, x, jnp.array([5.0, 7]).reshape(1, 1, 2, 1))
    assert y.ravel().tolist() == [3, 0]
    assert dx.reshape(2, 4).tolist() == [[0, 5, 7, 0], [0, 0, 0, 0]]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.tuples(*[st.integers(1, 3)] * 2), st.tuples(*[st.integers(3, 9)] * 2), st.integers(0, 99))
def test_equals_xla(window, size, seed):
    x = few_values(seed, 2, *size, 3)
    theirs = functools.partial(nn.max_pool, window_shape=window, strides=window)
    g = few_values(seed + 1, *jax.eval_shape(theirs, x).shape)
    ours = passes(lambda x: max_pool(x, window), x, g)
    for mine, xla in zip(ours, passes(theirs, x, g), strict=True):
        np.testing.assert_array_equal(mine, xla)


def test_dtypes_transformations_and_errors():
    x = jnp.asarray(np.random.default_rng(0).permutation(60) / 4, jnp.float32).reshape(1, 5, 6, 2)
    pool = functools.partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2))
    errors = [
        ([x[0]], "^max_pool takes x .* not "),
        ([x.astype(int)], "^max_pool expects a floating x, not int32"),
    ]
    check_gradient_rule(max_pool, [x], value=pool, potentials=[pool], errors=errors, rtol=0, atol=0)
    with pytest.raises(ValueError, match="not 12 by 11"):
        max_pool(x, (12, 11))
    with pytest.raises(ValueError, match="window must be"):
        max_pool(x, 0)


def test_nan_is_the_maximum():
    x = jnp.array([1.0, jnp.nan, 2, 0]).reshape(1, 2, 2, 1)
    y, dx = passes(max_pool, x, jnp.ones((1, 1, 1, 1)))
    assert np.isnan(y).all() and dx.ravel().tolist() == [1, 0, 0, 0]


def test_a_window_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match=r"^the window spans 2 pixels of height, .* has 1"):
        max_pool(jnp.ones((2, 1, 3, 1)))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.data())
def test_windows_that_overlap_or_leave_gaps_equal_xla(data):
    pairs = st.tuples(*[st.integers(1, 3)] * 2)
    window, strides, seed = data.draw(pairs), data.draw(pairs), data.draw(st.integers(0, 99))
    sides = [data.draw(st.tuples(*[st.integers(0, taps - 1)] * 2)) for taps in window]
    padding = data.draw(st.sampled_from(["VALID", "SAME", sides]))
    x = few_values(seed, 2, *data.draw(st.tuples(*[st.integers(3, 9)] * 2)), 2)
    theirs = functools.partial(nn.max_pool, window_shape=window, strides=strides, padding=padding)
    g = few_values(seed + 1, *jax.eval_shape(theirs, x).shape)
    ours = passes(lambda x: max_pool(x, window, strides, padding), x, g)
    for mine, xla in zip(ours, passes(theirs, x, g), strict=True):
        np.testing.assert_array_equal(mine, xla)  # sums of few quarters are exact


def test_the_last_window_may_reach_over_the_edge():
    # 3 pixels at stride 2, as PyTorch's ceil_mode: 6 pixels make 3 windows, the last one lacks one;
    # 7 make 3 that fill; of 2 pixels at stride 3, 4 pixels make 2, 5 make 2.
    rows = {(6, 3, 2): [2, 4, 5], (7, 3, 2): [2, 4, 6], (4, 2, 3): [1, 3], (5, 2, 3): [1, 4]}
    rows |= {(3, 1, 2): [0, 2], (2, 3, 2): [1], (3, 2, 4): [1]}
    for (size, window, stride), expected in rows.items():
        x = jnp.arange(float(size)).reshape(1, size, 1, 1)
        y = max_pool(x, (window, 1), (stride, 1), "ceil")
        assert y.ravel().tolist() == expected
