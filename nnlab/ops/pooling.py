r"""Maxima over windows.

.. math:: y_{pc} = \max_{k \in p} x_{kc}

for window p and channel c. The cotangent of y goes to the first pixel, row by row, that is equal to
it: the gradient wherever one pixel is largest, and at ties the choice that XLA makes as well.
XLA's own gradient (`select_and_scatter`) writes indices of every pixel on a CPU, and takes as long
as the convolutions beside it; this one keeps a byte for every output and is one fused loop.

Means over windows are `flax.linen.avg_pool`, and the mean of a whole image is `x.mean((1, 2))`.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from nnlab.kernels.batch import auto_sharded
from nnlab.kernels.window import Window
from nnlab.ops.pooling_windows import (
    Taps,
    pooling_window,
    to_chosen,
    window_pixels,
)
from nnlab.ops.windows import Padding


def max_pool(
    x: jax.Array,
    window: int | Sequence[int] = 2,
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """Largest value of every window.

    Args:
        x: images [batch, height, width, channels], floating.
        window: height and width of a window, at most 127 pixels together.
        strides: one for both axes, or (height, width); by default the window, so that windows lie
            side by side.
        padding: as of `nnlab.ops.adder.adder_conv`, or "CEIL": "VALID" with as much below and to
            the right as a last window needs that begins within the image, as Caffe and PyTorch's
            `ceil_mode` have it. A pixel of padding is never the largest.

    Returns:
        [batch, out height, out width, channels], dtype of `x`. A NaN in a window is its maximum,
        and its first pixel then gets the cotangent.

    Raises:
        ValueError: `x` has not four axes, or the window holds no pixel or too many or does not fit.
        TypeError: `x` is not floating.
    """
    taps, moves = pooling_window("max_pool", x, window, strides, padding)
    return auto_sharded(lambda x: _max_pool(x, taps, moves), x)


def first_largest(x: jax.Array, y: jax.Array, taps: Taps, moves: Window) -> jax.Array:
    """The number of the first pixel in each window that is not below its maximum `y`, int8."""
    first = jnp.zeros(y.shape, jnp.int8)
    for place, pixel in reversed(list(enumerate(window_pixels(x, taps, moves, -jnp.inf)))):
        first = jnp.where(pixel < y, first, jnp.int8(place))
    return first


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _max_pool(x: jax.Array, taps: Taps, moves: Window) -> jax.Array:
    return functools.reduce(jnp.maximum, window_pixels(x, taps, moves, -jnp.inf))


def _max_pool_fwd(x, taps, moves):
    y: Any = _max_pool(x, taps, moves)
    return y, (first_largest(x, y, taps, moves), x[:0])


def _max_pool_bwd(taps, moves, residuals, g):
    first, x = residuals
    return (to_chosen(g, first, taps, moves, x.shape[1:3]),)


_max_pool.defvjp(_max_pool_fwd, _max_pool_bwd)
