"""Pooling of images of any size into grids of a given size.

Bin i of n over s pixels reaches from floor(i s / n) to ceil((i + 1) s / n): all bins have nearly
one size, overlap if n does not divide s, and repeat pixels if s is below n. Means and maxima of
rectangles are taken along rows, then along columns.

References:
    The bins are those of PyTorch's `AdaptiveAvgPool2d`.
    He et al., Spatial pyramid pooling in deep convolutional networks, ECCV 2014,
    https://arxiv.org/abs/1406.4729, section 2.2.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.errors import InputError
from nnlab.ops.windows import pair


def adaptive_avg_pool(x: jax.Array, size: int | Sequence[int]) -> jax.Array:
    """Return the means of `size` bins.

    Args:
        x: images [batch, height, width, channels], floating, of at least one pixel.
        size: bins along height and width, or one number for both.

    Returns:
        [batch, size height, size width, channels], dtype of `x`.

    Raises:
        ValueError: `x` does not have four axes or has no pixel, or a size is not positive.
    """
    return _pooled("adaptive_avg_pool", jnp.mean, x, size)


def adaptive_max_pool(x: jax.Array, size: int | Sequence[int]) -> jax.Array:
    """Return the maxima of `size` bins; all else as for `adaptive_avg_pool`."""
    return _pooled("adaptive_max_pool", jnp.max, x, size)


def spatial_pyramid_pool(x: jax.Array, bins: Sequence[int] = (4, 2, 1)) -> jax.Array:
    """Return the maxima of n × n bins for each n of `bins`: one length for images of any size.

    Args:
        x: images [batch, height, width, channels], floating, of at least one pixel.
        bins: along height and along width, for each level. The paper has (4, 2, 1), 21 numbers a
            channel, and (6, 3, 2, 1), 50.

    Returns:
        [batch, channels · sum of n²], dtype of `x`: level by level, row by row, the channels of a
        bin side by side.

    Raises:
        ValueError: as for `adaptive_avg_pool`, or `bins` is empty.
    """
    if len(bins) == 0:
        raise InputError("spatial_pyramid_pool needs one level of bins or more, not none.")
    levels = [adaptive_max_pool(x, level) for level in bins]
    return jnp.concatenate([lax.collapse(level, 1) for level in levels], axis=1)


def _pooled(
    name: str, reduce: Callable[..., jax.Array], x: jax.Array, size: int | Sequence[int]
) -> jax.Array:
    if x.ndim != 4 or not x.shape[1] * x.shape[2]:
        raise InputError(f"{name} takes x [batch, height, width, channels], not {x.shape}.")
    for axis, bins in zip((1, 2), pair("size", size), strict=True):
        pixels = x.shape[axis]
        if bins == pixels:
            continue
        ends = [(i * pixels // bins, -(-(i + 1) * pixels // bins)) for i in range(bins)]
        parts = [jax.lax.slice_in_dim(x, low, high, axis=axis) for low, high in ends]
        x = jnp.concatenate([reduce(part, axis=axis, keepdims=True) for part in parts], axis)
    return x
