"""Maxima over windows that tell where they were found, and the way back to these places.

An encoder pools, a decoder puts its own numbers where the encoder's maxima stood and 0 elsewhere.
The rules are

=======================  ===================  ============================================
of                       cotangent            potential
=======================  ===================  ============================================
the pooled images        `max_pool`'s         the maximum
what is unpooled         g at its index  (1)  the unpooled images, equal indices adding up
=======================  ===================  ============================================

References:
    Badrinarayanan et al., SegNet, TPAMI 2017, https://arxiv.org/abs/1511.00561, section 3.
    The indices and (1) are those of PyTorch's `MaxPool2d(return_indices=True)` and `MaxUnpool2d`.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.errors import InputError
from nnlab.kernels.batch import auto_sharded
from nnlab.kernels.window import Window
from nnlab.ops.pooling import first_largest, max_pool
from nnlab.ops.pooling_windows import Taps, pooling_window
from nnlab.ops.windows import Padding, pair


def max_pool_with_indices(
    x: jax.Array,
    window: int | Sequence[int] = 2,
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> tuple[jax.Array, jax.Array]:
    """`max_pool(x, window, strides, padding)` and where each maximum stands.

    Returns:
        The maxima, and int32 indices of their shape: row · width + column of the first pixel of
        `x` that is equal to the maximum. Where that is NaN, the first pixel of the window.

    Raises:
        ValueError, TypeError: as of `nnlab.ops.pooling.max_pool`.
    """
    taps, moves = pooling_window("max_pool_with_indices", x, window, strides, padding)
    y = max_pool(x, window, strides, padding)
    indices = auto_sharded(
        functools.partial(_indices, taps=taps, moves=moves),
        lax.stop_gradient(x),
        lax.stop_gradient(y),
    )
    return y, indices


def _indices(x: jax.Array, y: jax.Array, taps: Taps, moves: Window) -> jax.Array:
    first = first_largest(x, y, taps, moves).astype(jnp.int32)
    (down, right), ((top, _), (left, _)) = moves.strides, moves.padding
    rows = jnp.arange(y.shape[1])[:, None, None] * down - top + first // taps[1]
    columns = jnp.arange(y.shape[2])[:, None] * right - left + first % taps[1]
    # A window of nothing but NaN or -inf chooses its first pixel, which may be one of padding.
    rows, columns = rows.clip(0, x.shape[1] - 1), columns.clip(0, x.shape[2] - 1)
    return (rows * x.shape[2] + columns).astype(jnp.int32)


def max_unpool(y: jax.Array, indices: jax.Array, size: int | Sequence[int]) -> jax.Array:
    """Images of 0 with the numbers of `y` at `indices`.

    Args:
        y: [batch, height, width, channels].
        indices: shape of `y`, integers: of `max_pool_with_indices` for images of `size`. Those of
            no pixel put nothing anywhere.
        size: height and width of the result, or one number for both.

    Returns:
        [batch, *size, channels], dtype of `y`. Where windows overlap, several numbers may have one
        index: one of them stands there, and each gets that pixel's cotangent.

    Raises:
        ValueError: `y` has not four axes, `indices` another shape, or `size` is not positive.
        TypeError: `indices` are no integers.
    """
    size = pair("size", size)
    if y.ndim != 4 or indices.shape != y.shape:
        raise InputError(
            "max_unpool takes y [batch, height, width, channels] and indices of its shape, "
            f"not {y.shape} and {indices.shape}."
        )
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise TypeError(f"max_unpool expects integer indices, not {indices.dtype}.")
    return auto_sharded(lambda y, indices: _max_unpool(y, indices, size), y, indices)


def _places(indices: jax.Array, size: tuple[int, int]):
    """Of arrays [batch, pixels, channels]: which numbers to put and get."""
    batch, _, _, channels = indices.shape
    flat = indices.reshape(batch, -1, channels)
    flat = jnp.where(flat < 0, size[0] * size[1], flat)  # not Python's index from the end
    return jnp.arange(batch)[:, None, None], flat, jnp.arange(channels)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _max_unpool(y: jax.Array, indices: jax.Array, size: tuple[int, int]) -> jax.Array:
    batch, _, _, channels = y.shape
    images = jnp.zeros((batch, size[0] * size[1], channels), y.dtype)
    values = y.reshape(batch, -1, channels)
    images = images.at[_places(indices, size)].set(values, mode="drop")
    return images.reshape(batch, *size, channels)


def _max_unpool_fwd(y, indices, size):
    return _max_unpool(y, indices, size), indices


def _max_unpool_bwd(size, indices, g):
    batch, _, _, channels = g.shape
    g = g.reshape(batch, -1, channels)
    dy = g.at[_places(indices, size)].get(mode="fill", fill_value=0)  # (1)
    return dy.reshape(indices.shape), None


_max_unpool.defvjp(_max_unpool_fwd, _max_unpool_bwd)
