"""A random part of each image, brought to one size, on the device that holds the batch.

The augmentation of ImageNet: 8 to 100 % of the area, in shapes from 3:4 to 4:3, as torchvision's
`RandomResizedCrop` draws and resizes them.

Reference:
    Szegedy et al., Going deeper with convolutions, CVPR 2015, https://arxiv.org/abs/1409.4842,
    section 6.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.errors import InputError, check_count
from nnlab.ops.keys import check_key
from nnlab.vision.augment import check_rank

_TRIES = 10  # as in torchvision


def random_resized_crop(
    key: jax.Array,
    images: jax.Array,
    size: tuple[int, int] | None = None,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> jax.Array:
    """Cut a random rectangle out of every image and bring it to `size`.

    Where ten rectangles in a row are too wide or too high for an image, its middle is taken, as
    large as the ratios allow. Pixels are interpolated bilinearly, averaged where the rectangle
    shrinks (antialiasing); integers are rounded.

    Args:
        key: of the rectangles.
        images: [n, height, width, channels], of any dtype.
        size: height and width of the result, by default those of the images.
        scale: least and largest part of the area.
        ratio: least and largest width over height, drawn on a scale of logarithms.

    Returns:
        Images of that size and of the same dtype.

    Raises:
        InputError: the images are not of rank 4, or a size or a range is none.
    """
    check_key(key)
    check_rank(images)
    starts, lengths = rectangles(key, images.shape, scale, ratio)
    return cut_out(images, starts, lengths, images.shape[1:3] if size is None else size)


def rectangles(
    key: jax.Array, shape: Sequence[int], scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[jax.Array, jax.Array]:
    """Draw what `random_resized_crop` cuts out of images of a shape [n, height, width, …].

    Returns:
        First row and column, and height and width, int32 [n, 2] each.

    Raises:
        InputError: a range is none.
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise InputError(f"scale must be two numbers from above 0 to 1 in order, not {scale}.")
    if not 0 < ratio[0] <= ratio[1] < math.inf:
        raise InputError(f"ratio must be two positive numbers in order, not {ratio}.")
    keys = jax.random.split(key, shape[0])
    return jax.vmap(lambda key: _rectangle(key, (shape[1], shape[2]), scale, ratio))(keys)


def cut_out(
    images: jax.Array, starts: jax.Array, lengths: jax.Array, size: Sequence[int]
) -> jax.Array:
    """Cut a rectangle out of each image and bring it to a size, as `random_resized_crop` does.

    Args:
        images: [n, height, width, channels], of any dtype.
        starts, lengths: of `rectangles`.
        size: height and width of the result.

    Raises:
        InputError: the size is none.
    """
    height, width = size
    check_count("height", height)
    check_count("width", width)
    rows, columns = (
        _weights(starts[:, axis], lengths[:, axis], images.shape[1 + axis], (height, width)[axis])
        for axis in (0, 1)
    )
    exact = lax.Precision.HIGHEST
    cut = jnp.einsum("noh,nhwc->nowc", rows, images.astype(rows.dtype), precision=exact)
    cut = jnp.einsum("npw,nowc->nopc", columns, cut, precision=exact)
    if jnp.issubdtype(images.dtype, jnp.integer):
        cut = jnp.round(cut)
    return cut.astype(images.dtype)


def _rectangle(
    key: jax.Array, sides: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[jax.Array, jax.Array]:
    """Draw first row and column of a rectangle, and its height and width, int32 [2] each."""
    high, wide = sides
    area_key, ratio_key, place_key = jax.random.split(key, 3)
    low, top = math.log(ratio[0]), math.log(ratio[1])
    area = high * wide * jax.random.uniform(area_key, (_TRIES,), minval=scale[0], maxval=scale[1])
    shape = jnp.exp(jax.random.uniform(ratio_key, (_TRIES,), minval=low, maxval=top))
    tries = jnp.stack([jnp.sqrt(area / shape), jnp.sqrt(area * shape)], axis=1)
    tries = jnp.round(tries).astype(jnp.int32)
    fits = ((tries > 0) & (tries <= jnp.array(sides))).all(axis=1)
    largest = (
        min(high, max(1, round(wide / ratio[0]))),
        min(wide, max(1, round(high * ratio[1]))),
    )
    lengths = jnp.where(fits.any(), tries[fits.argmax()], jnp.array(largest))
    free = jnp.array(sides) - lengths
    drawn = jax.random.randint(place_key, (2,), 0, free + 1)
    return jnp.where(fits.any(), drawn, free // 2), lengths


def _weights(start: jax.Array, length: jax.Array, old: int, new: int) -> jax.Array:
    """Return the part of each of `old` pixels in each of `new` ones, float32 [n, new, old]."""
    start, length = (each[:, None, None].astype(jnp.float32) for each in (start, length))
    factor = length / new
    there = jnp.arange(old) + 0.5
    middle = start + (jnp.arange(new)[:, None] + 0.5) * factor
    weights = jnp.maximum(1 - jnp.abs(there - middle) / jnp.maximum(factor, 1), 0)
    weights = jnp.where((there > start) & (there < start + length), weights, 0)
    return weights / weights.sum(axis=-1, keepdims=True)
