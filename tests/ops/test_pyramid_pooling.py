"""Spatial pyramids against windows cut out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.ops.pyramid_pooling import spatial_pyramid_pool


def test_golden():
    # 0 to 15 in four rows of four: quarters end in 5, 7, 13 and 15, and the whole in 15.
    x = jnp.arange(16.0).reshape(1, 4, 4, 1) * jnp.array([1.0, -1])
    y = spatial_pyramid_pool(x, (2, 1))
    assert y.tolist() == [[5, 0, 7, -2, 13, -8, 15, -10, 15, 0]]


def test_images_of_any_size_have_one_length():
    for size in ((4, 4), (7, 13), (1, 2)):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *size, 3)), jnp.bfloat16)
        y = jax.jit(spatial_pyramid_pool)(x)
        assert y.shape == (2, 3 * 21) and y.dtype == jnp.bfloat16
        np.testing.assert_array_equal(y[:, -3:], x.max((1, 2)))
        assert spatial_pyramid_pool(x, (6, 3, 2, 1)).shape == (2, 3 * 50)


def test_the_gradient_counts_the_levels_in_which_a_pixel_is_largest():
    x = jnp.asarray(np.random.default_rng(0).permutation(16), jnp.float32).reshape(1, 4, 4, 1)
    dx = jax.grad(lambda x: spatial_pyramid_pool(x).sum())(x).ravel()
    quarters = x.reshape(2, 2, 2, 2).max((1, 3)).ravel().tolist()
    for pixel, count in zip(x.ravel().tolist(), dx.tolist(), strict=True):
        assert count == 1 + (pixel in quarters) + (pixel == 15)  # each is a part of 4 by 4


def test_errors():
    with pytest.raises(InputError, match=r"^spatial_pyramid_pool needs one level .* not none"):
        spatial_pyramid_pool(jnp.ones((1, 4, 4, 1)), ())
    with pytest.raises(ValueError, match=r"^size must be .*, not 0"):
        spatial_pyramid_pool(jnp.ones((1, 4, 4, 1)), (0,))
