"""Random crops, flips and holes, on the device that holds the batch.

The standard augmentation of CIFAR: four zeros on each side and a crop of the original size, then
a mirror image half of the time. All are pure functions of a key, for use inside a jitted step.

References:
    Lee et al., Deeply-supervised nets, AISTATS 2015, https://arxiv.org/abs/1409.5185.
    He et al., Deep residual learning for image recognition, CVPR 2016,
    https://arxiv.org/abs/1512.03385, section 4.2.
    DeVries & Taylor, Improved regularization of convolutional neural networks with cutout, 2017,
    https://arxiv.org/abs/1708.04552; squares of 16 pixels for CIFAR-10, of 8 for CIFAR-100.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.errors import InputError
from nnlab.ops.keys import check_key

Augmentation = Callable[[jax.Array, Any], jax.Array]


def random_crop(key: jax.Array, images: jax.Array | np.ndarray, padding: int = 4) -> jax.Array:
    """Shift every image by up to `padding` pixels each way, with zeros at the edges.

    Args:
        key: image i is cropped at row and column `jax.random.randint(key, (n, 2), 0,
            2 * padding + 1)[i]` of its padded self.
        images: [n, height, width, channels], of any dtype.
        padding: zeros on each side, in pixels.

    Returns:
        Images of the same shape and dtype.

    Raises:
        InputError: the images are not of rank 4, or the padding is negative.
    """
    check_key(key)
    check_rank(images)
    if padding < 0:
        raise InputError(f"padding is {padding}, expected at least 0")
    offsets = jax.random.randint(key, (len(images), 2), 0, 2 * padding + 1)
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

    def crop(image, offset):
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), images.shape[1:])

    return jax.vmap(crop)(padded, offsets)


def random_flip(key: jax.Array, images: jax.Array | np.ndarray) -> jax.Array:
    """Mirror every image left to right with probability 1/2.

    Args:
        key: image i is mirrored if `jax.random.bernoulli(key, shape=(n,))[i]`.
        images: [n, height, width, channels], of any dtype.

    Raises:
        InputError: the images are not of rank 4.
    """
    check_key(key)
    check_rank(images)
    mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def random_crop_and_flip(key: jax.Array, images: jax.Array | np.ndarray) -> jax.Array:
    """Apply `random_crop` with padding 4, then `random_flip`, as is usual for CIFAR."""
    check_key(key)
    crop_key, flip_key = jax.random.split(key)
    return random_flip(flip_key, random_crop(crop_key, images))


def chain(*steps: Augmentation) -> Augmentation:
    """Return the augmentation that applies `steps` one after the other, each with its own key.

    augment = vision.chain(vision.random_crop_and_flip, vision.cutout)
    """

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        for one, step in zip(jax.random.split(key, len(steps)), steps, strict=True):
            images = step(one, images)
        return images

    return augment


def cutout(
    key: jax.Array, images: jax.Array | np.ndarray, size: int = 16, fill: float = 0.0
) -> jax.Array:
    """Fill a square of every image, around a pixel drawn at random.

    What of the square lies outside of the image is cut off. In standardised images 0 is the mean.

    Args:
        key: the square of image i has its middle at row and column `jax.random.randint(key, (n, 2),
            0, (height, width))[i]`, which is pixel `size // 2` of it.
        images: [n, height, width, channels], of any dtype.
        size: side of the square, in pixels.
        fill: what the square is filled with.

    Returns:
        Images of the same shape and dtype.

    Raises:
        InputError: the images are not of rank 4, or the size is negative.
    """
    check_key(key)
    check_rank(images)
    if size < 0:
        raise InputError(f"size is {size}, expected at least 0")
    sides = images.shape[1:3]
    first = jax.random.randint(key, (len(images), 2), 0, jnp.array(sides)) - size // 2
    inside = [
        (jnp.arange(side) >= start[:, None]) & (jnp.arange(side) < start[:, None] + size)
        for side, start in zip(sides, first.T, strict=True)
    ]
    square = inside[0][:, :, None, None] & inside[1][:, None, :, None]
    return jnp.where(square, jnp.asarray(fill, images.dtype), images)


def check_rank(images: jax.Array | np.ndarray) -> None:
    """Raise `InputError` unless images are [n, height, width, channels]."""
    if images.ndim != 4:
        raise InputError(f"images have shape {images.shape}, expected [n, height, width, channels]")
