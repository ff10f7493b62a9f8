"""Pooling of images of any size into a grid of a given one.

Bin i of n over s pixels reaches from floor(i s / n) to ceil((i + 1) s / n): all of nearly one size,
overlapping where n does not divide s, and repeating pixels where s is below n. Means and maxima of
rectangles are those of rows, then of columns.

References:
    The bins are those of PyTorch's `AdaptiveAvgPool2d`; He et al., Spatial pyramid pooling in deep
    convolutional networks, ECCV 2014, https://arxiv.org/abs/1406.4729, for the idea.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from nnlab.errors import InputError
from nnlab.ops.windows import pair


def adaptive_avg_pool(x: jax.Array, size: int | Sequence[int]) -> jax.Array:
    """Means of `size` bins, one number for both axes or (height, width).

    Args:
        x: images [batch, height, width, channels], floating, of at least one pixel.
        size: bins along height and width.

    Returns:
        [batch, size height, size width, channels], dtype of `x`.

    Raises:
        ValueError: `x` has not four axes or no pixel, or a size is not positive.
    """
    return _pooled("adaptive_avg_pool", jnp.mean, x, size)


def adaptive_max_pool(x: jax.Array, size: int | Sequence[int]) -> jax.Array:
    """Maxima of `size` bins; all else as of `adaptive_avg_pool`."""
    return _pooled("adaptive_max_pool", jnp.max, x, size)


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
