"""Adaptive pooling against PyTorch's, and spatial pyramids against windows cut out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from nnlab.errors import InputError
from nnlab.ops.adaptive_pooling import adaptive_avg_pool, adaptive_max_pool, spatial_pyramid_pool


@pytest.mark.parametrize(
    ("pixels", "size"),
    [((8, 6), (4, 2)), ((7, 9), (3, 2)), ((2, 3), (5, 3)), ((1, 5), (1, 7)), ((9, 4), (1, 1))],
)
def test_equals_pytorch(pixels, size):
    x = np.random.default_rng(0).normal(size=(2, *pixels, 3)).astype(np.float32)
    images = torch.tensor(x.transpose(0, 3, 1, 2))
    for ours, theirs in (
        (adaptive_avg_pool, torch.nn.functional.adaptive_avg_pool2d),
        (adaptive_max_pool, torch.nn.functional.adaptive_max_pool2d),
    ):
        expected = theirs(images, size).numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(jax.jit(ours, static_argnums=1)(x, size), expected, atol=1e-6)


def test_golden_pyramid():
    # 0 to 15 in four rows of four: quarters end in 5, 7, 13 and 15, and the whole in 15.
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1) * np.asarray([1, -1], np.float32)
    y = jax.jit(spatial_pyramid_pool, static_argnums=1)(x, (2, 1))
    assert y.tolist() == [[5, 0, 7, -2, 13, -8, 15, -10, 15, 0]]


def test_images_of_any_size_have_one_length():
    for size in ((4, 4), (7, 13), (1, 2)):
        x = jax.ShapeDtypeStruct((2, *size, 3), jnp.bfloat16)
        y = jax.eval_shape(spatial_pyramid_pool, x)
        assert y.shape == (2, 3 * 21) and y.dtype == jnp.bfloat16
        longer = jax.eval_shape(lambda x: spatial_pyramid_pool(x, (6, 3, 2, 1)), x)
        assert longer.shape == (2, 3 * 50)


def test_the_gradient_counts_the_levels_in_which_a_pixel_is_largest():
    x = np.asarray(np.random.default_rng(0).permutation(16), np.float32).reshape(1, 4, 4, 1)
    dx = jax.jit(jax.grad(lambda x: spatial_pyramid_pool(x).sum()))(x).ravel()
    quarters = np.ravel(x.reshape(2, 2, 2, 2).max((1, 3))).tolist()
    for pixel, count in zip(np.ravel(x).tolist(), dx.tolist(), strict=True):
        assert count == 1 + (pixel in quarters) + (pixel == 15)  # each is a part of 4 by 4


def test_errors():
    with pytest.raises(InputError, match=r"^adaptive_avg_pool takes x .*, not \(4, 4, 1\)\."):
        adaptive_avg_pool(jnp.zeros((4, 4, 1)), 2)
    with pytest.raises(InputError, match=r"^spatial_pyramid_pool needs one level .* not none"):
        spatial_pyramid_pool(jnp.ones((1, 4, 4, 1)), ())
    for pool in (adaptive_max_pool, lambda x, n: spatial_pyramid_pool(x, (n,))):
        with pytest.raises(ValueError, match=r"^size must be .*, not 0"):
            pool(jnp.zeros((1, 4, 4, 1)), 0)
