"""Pooling against XLA's and PyTorch's, in values and gradients, with ties, padding and NaN."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from nnlab.errors import InputError
from nnlab.ops.pooling import (
    expected_pool,
    max_pool,
    max_pool_with_indices,
    max_unpool,
    stochastic_pool,
)
from nnlab.testing import check_gradient_rule


def few_values(seed, *shape) -> Any:
    """Multiples of 1/4 between -1 and 1: many windows have ties, and sums are exact."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32) / 4


def passes(op, x, g):
    def both(x, g):
        y, pull = jax.vjp(op, x)
        return y, *pull(g)

    return jax.jit(both)(x, g)


def to_torch(x):
    return torch.tensor(np.moveaxis(np.asarray(x), -1, 1).copy())


def from_torch(x):
    return np.moveaxis(x.detach().numpy(), 1, -1)


def of_pixels(*pixels) -> Any:
    return np.array(pixels, np.float32).reshape(1, 2, 2, 1)


def test_golden_maxima():
    # Windows [1, 3; 3, 2] and [0, 0; 0, 0]: the first 3 and the first 0 get the cotangents.
    x = np.asarray([[1.0, 3, 0, 0], [3, 2, 0, 0]], np.float32).reshape(1, 2, 4, 1)
    y, dx = passes(max_pool, x, np.asarray([5.0, 7], np.float32).reshape(1, 1, 2, 1))
    assert np.ravel(y).tolist() == [3, 0]
    assert dx.reshape(2, 4).tolist() == [[0, 5, 7, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("window", "strides", "padding", "size"),
    [
        ((2, 2), None, "VALID", (5, 6)),
        ((1, 3), None, "VALID", (3, 7)),
        ((3, 2), (3, 2), ((2, 1), (0, 1)), (7, 4)),
        ((3, 3), (2, 1), "SAME", (6, 5)),  # overlapping
        ((2, 3), (1, 2), ((1, 0), (2, 1)), (4, 8)),
        ((2, 1), (3, 2), "VALID", (9, 4)),  # with gaps
    ],
)
def test_maxima_equal_xla(window, strides, padding, size):
    x = few_values(0, 2, *size, 3)
    theirs = functools.partial(
        nn.max_pool, window_shape=window, strides=strides or window, padding=padding
    )
    g = few_values(1, *jax.eval_shape(theirs, x).shape)
    ours = passes(lambda x: max_pool(x, window, strides, padding), x, g)
    for mine, xla in zip(ours, passes(theirs, x, g), strict=True):
        np.testing.assert_array_equal(mine, xla)


def test_maxima_dtypes_transformations_and_errors():
    x: Any = np.random.default_rng(0).permutation(60).reshape(1, 5, 6, 2).astype(np.float32) / 4
    pool = jax.jit(functools.partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2)))
    errors = [
        ([x[0]], "^max_pool takes x .* not "),
        ([x.astype("int32")], "^max_pool expects a floating x, not int32"),
    ]
    check_gradient_rule(max_pool, [x], value=pool, potentials=[pool], errors=errors, rtol=0, atol=0)
    with pytest.raises(ValueError, match="not 12 by 11"):
        max_pool(x, (12, 11))
    with pytest.raises(ValueError, match="window must be"):
        max_pool(x, 0)


def test_nan_is_the_maximum():
    x = np.asarray([1.0, jnp.nan, 2, 0], np.float32).reshape(1, 2, 2, 1)
    y, dx = passes(max_pool, x, np.ones((1, 1, 1, 1), np.float32))
    assert np.isnan(y).all() and np.ravel(dx).tolist() == [1, 0, 0, 0]


def test_a_window_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match=r"^the window spans 2 pixels of height, .* has 1"):
        max_pool(jnp.ones((2, 1, 3, 1)))


def test_the_last_window_may_reach_over_the_edge():
    # 3 pixels at stride 2, as PyTorch's ceil_mode: 6 pixels make 3 windows, the last one lacks one;
    # 7 make 3 that fill; of 2 pixels at stride 3, 4 pixels make 2, 5 make 2.
    rows = {(6, 3, 2): [2, 4, 5], (7, 3, 2): [2, 4, 6], (4, 2, 3): [1, 3], (5, 2, 3): [1, 4]}
    rows |= {(3, 1, 2): [0, 2], (2, 3, 2): [1], (3, 2, 4): [1]}
    rows |= {(4, 1, 2): [0, 2], (5, 2, 5): [1]}  # none begins where the image ends

    @jax.jit
    def pooled():
        return [
            max_pool(
                jnp.arange(float(size)).reshape(1, size, 1, 1), (window, 1), (stride, 1), "ceil"
            )
            for size, window, stride in rows
        ]

    assert [np.ravel(y).tolist() for y in pooled()] == [*rows.values()]


@pytest.mark.parametrize(
    ("size", "window", "strides", "padding"),
    [((6, 4), 2, None, 0), ((7, 5), (3, 2), (2, 3), 0), ((6, 7), 3, 2, 1), ((6, 7), 3, 2, "CEIL")],
)
def test_pools_unpools_and_differentiates_as_pytorch(size, window, strides, padding):
    x = few_values(0, 2, *size, 3)
    there = to_torch(x).requires_grad_()
    ceil = padding == "CEIL"
    pooled, places = torch.nn.functional.max_pool2d(
        there, window, strides, 0 if ceil else padding, ceil_mode=ceil, return_indices=True
    )
    unpooled = torch.ops.aten.max_unpool2d(pooled, places, size)
    g = few_values(1, 2, *size, 3)
    (gradient,) = torch.autograd.grad(2 * unpooled, there, to_torch(g))

    @jax.jit
    def there_and_back(x, g):
        def both(x):
            y, indices = max_pool_with_indices(x, window, strides, padding)
            return 2 * max_unpool(y, indices, size), (y, indices)

        images, back, aux = jax.vjp(both, x, has_aux=True)
        return images, *aux, *back(g)

    images, y, indices, dx = there_and_back(x, g)
    assert y.dtype == jnp.float32 and indices.dtype == jnp.int32
    np.testing.assert_array_equal(y, from_torch(pooled))
    np.testing.assert_array_equal(indices, from_torch(places))
    np.testing.assert_array_equal(images, 2 * from_torch(unpooled))
    np.testing.assert_array_equal(dx, from_torch(gradient))


def test_golden_indices():
    # 1 9 | 2 3    the 9 at row 0, column 1; the first 3 at row 0, column 3
    # 4 5 | 3 0
    x = np.asarray([[1.0, 9, 2, 3], [4, 5, 3, 0]], np.float32).reshape(1, 2, 4, 1)
    y, indices = jax.jit(max_pool_with_indices)(x)
    assert np.ravel(y).tolist() == [9, 3] and np.ravel(indices).tolist() == [1, 3]
    y, g = np.array([[[[5], [7]]]], np.float32), np.arange(8, dtype=np.float32).reshape(1, 2, 4, 1)
    images, dy = passes(lambda y: max_unpool(y, indices, (2, 4)), y, g)
    assert images.reshape(2, 4).tolist() == [[0, 5, 0, 7], [0, 0, 0, 0]]
    assert np.ravel(dy).tolist() == [1, 3]


def test_equal_indices_each_get_the_cotangent():
    indices = jnp.array([[[[2], [2], [0]]]])
    y, g = (
        np.full(indices.shape, 5, np.float32),
        np.array([1, 2, 3], np.float32).reshape(1, 1, 3, 1),
    )
    pixels, dy = passes(lambda y: max_unpool(y, indices, (1, 3)), y, g)
    assert np.ravel(pixels).tolist() == [5, 0, 5]
    assert np.ravel(dy).tolist() == [3, 3, 1]


def test_indices_of_no_pixel_put_and_get_nothing():
    indices = jnp.array([[[[-1], [3], [1]]]])
    ones = np.ones(indices.shape, np.float32)
    pixels, dy = passes(lambda y: max_unpool(y, indices, (1, 3)), ones, ones)
    assert np.ravel(pixels).tolist() == [0, 1, 0] and np.ravel(dy).tolist() == [0, 0, 1]


def test_windows_of_nan_or_minus_infinity_name_a_pixel_of_the_image():
    x = np.asarray([[-jnp.inf, -jnp.inf], [jnp.nan, 0]], np.float32).reshape(1, 2, 2, 1)
    pool = functools.partial(
        max_pool_with_indices, window=(1, 3), strides=(1, 2), padding=((0, 0), (1, 0))
    )
    _, indices = jax.jit(pool)(x)
    assert np.ravel(indices).tolist() == [0, 2]


def test_maxima_and_their_gradient_are_those_of_max_pool_in_bfloat16_and_under_vmap():
    x, g = jnp.bfloat16(few_values(2, 3, 2, 4, 6, 2)), jnp.bfloat16(few_values(3, 3, 2, 2, 3, 2))

    def pool(x):
        return max_pool_with_indices(x)[0]

    ours, plain = (jax.vmap(functools.partial(passes, op))(x, g) for op in (pool, max_pool))
    for one, other in zip(ours, plain, strict=True):
        assert one.dtype == jnp.bfloat16
        np.testing.assert_array_equal(one, other)


def test_errors_of_unpooling():
    y, indices = jnp.ones((1, 2, 2, 1)), jnp.zeros((1, 2, 2, 1), int)
    with pytest.raises(InputError, match=r"^max_pool_with_indices takes x .*, not \(4, 4\)\."):
        max_pool_with_indices(jnp.ones((4, 4)))
    with pytest.raises(InputError, match=r"not \(1, 2, 2, 1\) and \(1, 1, 2, 1\)\."):
        max_unpool(y, indices[:, :1], 4)
    with pytest.raises(TypeError, match=r"^max_unpool expects integer indices, not float32"):
        max_unpool(y, y, 4)
    with pytest.raises(ValueError, match=r"^size must be .*, not 0"):
        max_unpool(y, indices, 0)


def test_golden_mean_and_gradient():
    # (1 + 9 + 16) / (1 + 3 + 4); its gradient is (2 a - y) / 8, and 0 for the pixel below 0.
    y, dx = passes(expected_pool, of_pixels(1, -2, 3, 4), np.ones((1, 1, 1, 1), np.float32))
    assert y.item() == 26 / 8
    assert np.ravel(dx).tolist() == [(2 * a - 26 / 8) / 8 if a else 0 for a in (1, 0, 3, 4)]


def test_frequencies_are_the_shares_of_the_sum():
    draws, shares = 20_000, np.array([1, 0, 3, 4]) / 8
    x = of_pixels(1, -2, 3, 4)

    @jax.jit
    def draw(key):
        return jax.vmap(lambda key: stochastic_pool(key, x))(jax.random.split(key, draws))

    drawn = np.ravel(draw(jax.random.key(0)))
    assert set(drawn.tolist()) == {1, 3, 4}
    for value, share in zip((1, -2, 3, 4), shares, strict=True):
        # Five standard deviations of a binomial share.
        bound = 5 * np.sqrt(share * (1 - share) / draws)
        assert abs((drawn == value).mean() - share) <= bound


def test_the_cotangent_goes_to_the_pixel_that_was_drawn():
    # Distinct pixels, so that a value tells its pixel; overlapping windows, one pixel of padding.
    x = np.asarray(np.random.default_rng(0).permutation(60) + 1, np.float32).reshape(2, 5, 6, 1)
    for padding, strides in ((((1, 0), (0, 1)), (2, 1)), ("VALID", None)):

        def pool(x, padding=padding, strides=strides):
            return stochastic_pool(jax.random.key(1), x, 2, strides, padding)

        shape = jax.eval_shape(pool, x).shape
        g = np.arange(1.0, np.prod(shape) + 1, dtype=np.float32).reshape(shape)
        y, dx = passes(pool, x, g)
        expected = np.zeros(x.shape)
        for value, cotangent in zip(np.ravel(y).tolist(), np.ravel(g).tolist(), strict=True):
            expected[np.asarray(x) == value] += cotangent
        np.testing.assert_array_equal(dx, expected)


def test_windows_without_a_pixel_above_0_are_0_and_get_no_cotangent():
    x = np.asarray([0.0, -1, -2, 0], np.float32).reshape(1, 2, 2, 1)
    for pool in (expected_pool, lambda x: stochastic_pool(jax.random.key(0), x)):
        y, dx = passes(pool, x, np.ones((1, 1, 1, 1), np.float32))
        assert y.item() == 0 and np.ravel(dx).tolist() == [0, 0, 0, 0]


def test_what_is_not_finite_is_seen():
    for pool in (expected_pool, lambda x: stochastic_pool(jax.random.key(0), x)):
        pool = jax.jit(pool)
        assert np.isnan(pool(of_pixels(1, np.nan, 0, 2))).all()
    assert pool(of_pixels(1, np.inf, 0, 2)).item() == np.inf  # by a draw


def test_the_mean_in_all_dtypes_and_transformations():
    x = np.asarray(np.random.default_rng(0).permutation(8) / 4 + 0.25, np.float32)
    x = x.reshape(1, 2, 4, 1)
    errors = [
        ([x[0]], "^expected_pool takes x .* not "),
        ([x.astype("int32")], "^expected_pool expects a floating x, not int32"),
    ]

    def means(x):
        return nn.avg_pool(x * x, (2, 2), (2, 2)) / nn.avg_pool(x, (2, 2), (2, 2))

    check_gradient_rule(expected_pool, [x], value=jax.jit(means), potentials=[means], errors=errors)


def test_draws_keep_half_precision_and_follow_the_key():
    x = np.asarray(np.random.default_rng(0).uniform(0, 4, (2, 8, 8, 3)), jnp.bfloat16)
    draw = jax.jit(stochastic_pool)
    y, again, other = (np.asarray(draw(jax.random.key(seed), x)) for seed in (0, 0, 1))
    assert y.dtype == jnp.bfloat16 and set(np.ravel(y).tolist()) <= set(np.ravel(x).tolist())
    assert (y == again).all() and (y != other).any()
    with pytest.raises(InputError, match=r"^stochastic_pool takes x .*, not \(8, 8, 3\)\."):
        stochastic_pool(jax.random.key(0), x[0])
