"""Random crops and flips, on the device that holds the batch.

The standard augmentation of CIFAR: four zeros on each side and a crop of the original size, then
a mirror image half of the time. Both are pure functions of a key, for use inside a jitted step.

References:
    Lee et al., Deeply-supervised nets, AISTATS 2015, https://arxiv.org/abs/1409.5185.
    He et al., Deep residual learning for image recognition, CVPR 2016,
    https://arxiv.org/abs/1512.03385, section 4.2.
"""

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.errors import InputError
from nnlab.ops.keys import check_key


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
    _check_rank(images)
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
    _check_rank(images)
    mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def random_crop_and_flip(key: jax.Array, images: jax.Array | np.ndarray) -> jax.Array:
    """Apply `random_crop` with padding 4, then `random_flip`, as is usual for CIFAR."""
    check_key(key)
    crop_key, flip_key = jax.random.split(key)
    return random_flip(flip_key, random_crop(crop_key, images))


def _check_rank(images: jax.Array | np.ndarray) -> None:
    if images.ndim != 4:
        raise InputError(f"images have shape {images.shape}, expected [n, height, width, channels]")
