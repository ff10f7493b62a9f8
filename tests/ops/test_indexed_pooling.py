"""Maxima with their indices and the way back, against PyTorch, in values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from nnlab.errors import InputError
from nnlab.ops.indexed_pooling import max_pool_with_indices, max_unpool
from nnlab.ops.pooling import max_pool


def few_values(seed, *shape):
    """Multiples of 1/4 between -1 and 1: many windows have ties, and sums are exact."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32) / 4


def to_torch(x):
    return torch.tensor(np.moveaxis(np.asarray(x), -1, 1).copy())


def from_torch(x):
    return np.moveaxis(x.detach().numpy(), 1, -1)


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

    def there_and_back(x):
        y, indices = max_pool_with_indices(x, window, strides, padding)
        return 2 * max_unpool(y, indices, size), (y, indices)

    images, back, (y, indices) = jax.vjp(jax.jit(there_and_back), x, has_aux=True)
    assert y.dtype == jnp.float32 and indices.dtype == jnp.int32
    np.testing.assert_array_equal(y, from_torch(pooled))
    np.testing.assert_array_equal(indices, from_torch(places))
    np.testing.assert_array_equal(images, 2 * from_torch(unpooled))
    np.testing.assert_array_equal(back(jnp.asarray(g))[0], from_torch(gradient))


def test_golden():
    # 1 9 | 2 3    the 9 at row 0, column 1; the first 3 at row 0, column 3
    # 4 5 | 3 0
    x = jnp.array([[1.0, 9, 2, 3], [4, 5, 3, 0]]).reshape(1, 2, 4, 1)
    y, indices = max_pool_with_indices(x)
    assert y.ravel().tolist() == [9, 3] and indices.ravel().tolist() == [1, 3]
    images, back = jax.vjp(lambda y: max_unpool(y, indices, (2, 4)), jnp.array([[[[5.0], [7]]]]))
    assert images.reshape(2, 4).tolist() == [[0, 5, 0, 7], [0, 0, 0, 0]]
    (dy,) = back(jnp.arange(8.0).reshape(1, 2, 4, 1))
    assert dy.ravel().tolist() == [1, 3]


def test_equal_indices_each_get_the_cotangent():
    indices = jnp.array([2, 2, 0]).reshape(1, 1, 3, 1)
    pixels, back = jax.vjp(lambda y: max_unpool(y, indices, (1, 3)), jnp.full(indices.shape, 5.0))
    assert pixels.ravel().tolist() == [5, 0, 5]
    (dy,) = back(jnp.array([1.0, 2, 3]).reshape(1, 1, 3, 1))
    assert dy.ravel().tolist() == [3, 3, 1]


def test_indices_of_no_pixel_put_and_get_nothing():
    indices = jnp.array([-1, 3, 1]).reshape(1, 1, 3, 1)
    pixels, back = jax.vjp(lambda y: max_unpool(y, indices, (1, 3)), jnp.ones(indices.shape))
    assert pixels.ravel().tolist() == [0, 1, 0]
    assert back(jnp.ones((1, 1, 3, 1)))[0].ravel().tolist() == [0, 0, 1]


def test_windows_of_nan_or_minus_infinity_name_a_pixel_of_the_image():
    x = jnp.array([[-jnp.inf, -jnp.inf], [jnp.nan, 0]]).reshape(1, 2, 2, 1)
    _, indices = max_pool_with_indices(x, (1, 3), (1, 2), ((0, 0), (1, 0)))
    assert indices.ravel().tolist() == [0, 2]


def test_maxima_and_their_gradient_are_those_of_max_pool_in_bfloat16_and_under_vmap():
    x, g = jnp.bfloat16(few_values(2, 3, 2, 4, 6, 2)), jnp.bfloat16(few_values(3, 3, 2, 2, 3, 2))

    def passes(pool, x, g):
        y, pull = jax.vjp(pool, x)
        return y, *pull(g)

    def pool(x):
        return max_pool_with_indices(x)[0]

    ours = jax.vmap(functools.partial(passes, pool))(x, g)
    for one, other in zip(ours, jax.vmap(functools.partial(passes, max_pool))(x, g), strict=True):
        assert one.dtype == jnp.bfloat16
        np.testing.assert_array_equal(one, other)


def test_errors():
    y, indices = max_pool_with_indices(jnp.ones((1, 4, 4, 1)))
    with pytest.raises(InputError, match=r"^max_pool_with_indices takes x .*, not \(4, 4\)\."):
        max_pool_with_indices(jnp.ones((4, 4)))
    with pytest.raises(InputError, match=r"not \(1, 2, 2, 1\) and \(1, 1, 2, 1\)\."):
        max_unpool(y, indices[:, :1], 4)
    with pytest.raises(TypeError, match=r"^max_unpool expects integer indices, not float32"):
        max_unpool(y, y, 4)
    with pytest.raises(ValueError, match=r"^size must be .*, not 0"):
        max_unpool(y, indices, 0)
