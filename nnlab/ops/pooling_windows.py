"""What pooling by one pixel of each window is made of: which pixels, and the way back to them.

A window's choice is a byte, the number of the pixel row by row; with it a cotangent finds its way
back in one fused loop, where XLA's own gradients keep and sort indices of every pixel on a CPU.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.errors import InputError
from nnlab.kernels.window import Window
from nnlab.ops.windows import Padding, pair, window_of

Taps = tuple[int, int]


def pooling_window(
    name: str,
    x: jax.Array,
    window: int | Sequence[int],
    strides: int | Sequence[int] | None,
    padding: Padding,
) -> tuple[Taps, Window]:
    """The pixels (height, width) of a window and how it moves, by the arguments of `max_pool`.

    Raises:
        ValueError: `x` has not four axes, or the window holds no pixel or too many or does not fit.
        TypeError: `x` is not floating.
    """
    taps = pair("window", window)
    if x.ndim != 4:
        raise InputError(f"{name} takes x [batch, height, width, channels], not {x.shape}.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name} expects a floating x, not {x.dtype}.")
    if not 0 < taps[0] * taps[1] < 128:
        raise InputError(f"{name} needs a window of 1 to 127 pixels, not {taps[0]} by {taps[1]}.")
    strides = pair("strides", taps if strides is None else strides)
    if isinstance(padding, str) and padding.upper() == "CEIL":
        padding = [(0, _lacking(*sizes)) for sizes in zip(x.shape[1:3], taps, strides, strict=True)]
    return taps, window_of(x.shape, taps, strides, padding, 1)


def _lacking(size: int, taps: int, stride: int) -> int:
    """Pixels by which the last of the windows that begin within the image leaves it."""
    windows = max(0, math.ceil((size - taps) / stride)) + 1
    if (windows - 1) * stride >= size:
        windows -= 1
    return max(0, (windows - 1) * stride + taps - size)


def window_pixels(x: jax.Array, taps: Taps, moves: Window, padded: float) -> list[jax.Array]:
    """The first, second, … pixel of all windows, row by row; `padded` where there is none."""
    height, width = moves.positions(x.shape[1:], taps)
    (down, right), pads = moves.strides, moves.padding
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=padded)
    rows, columns = (height - 1) * down + 1, (width - 1) * right + 1
    return [
        x[:, i : i + rows : down, j : j + columns : right]
        for i in range(taps[0])
        for j in range(taps[1])
    ]


def to_chosen(
    g: jax.Array, chosen: jax.Array, taps: Taps, moves: Window, size: Sequence[int]
) -> jax.Array:
    """Images of `size` (height, width) with each window's g added to the pixel it chose.

    Args:
        g: [batch, out height, out width, channels].
        chosen: shape of `g`, int8: the number of the pixel in its window, -1 for none.
        taps, moves: the windows.
        size: of the images.
    """
    (down, right), pads = moves.strides, moves.padding
    height, width = (pixels + sum(sides) for pixels, sides in zip(size, pads, strict=True))
    if moves.strides == taps:  # windows do not overlap
        n, rows, columns, channels = g.shape
        places = jnp.arange(taps[0] * taps[1], dtype=jnp.int8).reshape(taps[0], 1, taps[1], 1)
        here = chosen[:, :, None, :, None] == places
        x = jnp.where(here, g[:, :, None, :, None], 0)
        x = x.reshape(n, rows * down, columns * right, channels)
        x = jnp.pad(x, ((0, 0), (0, height - x.shape[1]), (0, width - x.shape[2]), (0, 0)))
    else:
        every = [(i, j) for i in range(taps[0]) for j in range(taps[1])]
        parts = [
            _spread(jnp.where(chosen == place, g, 0), tap, moves, (height, width))
            for place, tap in enumerate(every)
        ]
        x = functools.reduce(jnp.add, parts)
    (top, _), (left, _) = pads
    return x[:, top : top + size[0], left : left + size[1]]


def _spread(g: jax.Array, offset: Taps, moves: Window, size: Taps) -> jax.Array:
    """g [batch, out height, out width, channels] at one tap's pixels of an image of that size."""
    sides = []
    for outputs, low, stride, pixels in zip(g.shape[1:3], offset, moves.strides, size, strict=True):
        sides.append((low, pixels - low - (outputs - 1) * stride - 1, stride - 1))
    return lax.pad(g, jnp.zeros((), g.dtype), ((0, 0, 0), *sides, (0, 0, 0)))
