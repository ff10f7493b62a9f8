"""Draws from windows: their frequencies, their mean, and where the cotangent goes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.ops.stochastic_pooling import expected_pool, stochastic_pool
from nnlab.testing import check_gradient_rule


def window(*pixels):
    return jnp.array(pixels, jnp.float32).reshape(1, 2, 2, 1)


def test_golden_mean_and_gradient():
    # (1 + 9 + 16) / (1 + 3 + 4); its gradient is (2 a - y) / 8, and 0 for the pixel below 0.
    y, back = jax.vjp(expected_pool, window(1, -2, 3, 4))
    assert y.item() == 26 / 8
    (dx,) = back(jnp.ones((1, 1, 1, 1)))
    assert dx.ravel().tolist() == [(2 * a - 26 / 8) / 8 if a else 0 for a in (1, 0, 3, 4)]


def test_frequencies_are_the_shares_of_the_sum():
    draws, shares = 20_000, np.array([1, 0, 3, 4]) / 8
    keys = jax.random.split(jax.random.key(0), draws)
    x = window(1, -2, 3, 4)
    drawn = np.asarray(jax.vmap(lambda key: stochastic_pool(key, x))(keys)).ravel()
    assert set(drawn.tolist()) == {1, 3, 4}
    for value, share in zip((1, -2, 3, 4), shares, strict=True):
        # Five standard deviations of a binomial share.
        bound = 5 * np.sqrt(share * (1 - share) / draws)
        assert abs((drawn == value).mean() - share) <= bound


def test_the_cotangent_goes_to_the_pixel_that_was_drawn():
    # Distinct pixels, so that a value tells its pixel; overlapping windows, one pixel of padding.
    x = jnp.asarray(np.random.default_rng(0).permutation(60) + 1, jnp.float32).reshape(2, 5, 6, 1)
    for padding, strides in ((((1, 0), (0, 1)), (2, 1)), ("VALID", None)):
        y, back = jax.vjp(
            jax.jit(lambda x, p=padding, s=strides: stochastic_pool(jax.random.key(1), x, 2, s, p)),
            x,
        )
        g = jnp.arange(1.0, y.size + 1).reshape(y.shape)
        expected = np.zeros(x.shape)
        for value, cotangent in zip(y.ravel().tolist(), g.ravel().tolist(), strict=True):
            expected[np.asarray(x) == value] += cotangent
        np.testing.assert_array_equal(back(g)[0], expected)


def test_windows_without_a_pixel_above_0_are_0_and_get_no_cotangent():
    x = jnp.array([0.0, -1, -2, 0]).reshape(1, 2, 2, 1)
    for pool in (expected_pool, lambda x: stochastic_pool(jax.random.key(0), x)):
        y, back = jax.vjp(pool, x)
        assert y.item() == 0
        assert back(jnp.ones(y.shape))[0].ravel().tolist() == [0, 0, 0, 0]


def test_what_is_not_finite_is_seen():
    for pool in (expected_pool, lambda x: stochastic_pool(jax.random.key(0), x)):
        assert np.isnan(pool(window(1, np.nan, 0, 2))).all()
    assert stochastic_pool(jax.random.key(0), window(1, np.inf, 0, 2)).item() == np.inf


def test_the_mean_in_all_dtypes_and_transformations():
    x = jnp.asarray(np.random.default_rng(0).permutation(8) / 4 + 0.25, jnp.float32)
    x = x.reshape(1, 2, 4, 1)
    errors = [
        ([x[0]], "^expected_pool takes x .* not "),
        ([x.astype(int)], "^expected_pool expects a floating x, not int32"),
    ]

    def means(x):
        return nn.avg_pool(x * x, (2, 2), (2, 2)) / nn.avg_pool(x, (2, 2), (2, 2))

    check_gradient_rule(expected_pool, [x], value=means, potentials=[means], errors=errors)


def test_draws_keep_half_precision_and_follow_the_key():
    x = jnp.asarray(np.random.default_rng(0).uniform(0, 4, (2, 8, 8, 3)), jnp.bfloat16)
    y, again, other = (stochastic_pool(jax.random.key(seed), x) for seed in (0, 0, 1))
    assert y.dtype == jnp.bfloat16 and set(y.ravel().tolist()) <= set(x.ravel().tolist())
    assert (y == again).all() and (y != other).any()
    with pytest.raises(InputError, match=r"^stochastic_pool takes x .*, not \(8, 8, 3\)\."):
        stochastic_pool(jax.random.key(0), x[0])
