r"""Maxima over windows.

.. math:: y_{pc} = \max_{k \in p} x_{kc}

for window p and channel c. The cotangent of y goes to the first pixel, row by row, that is equal to
it: the gradient wherever one pixel is largest, and at ties the choice that XLA makes as well.
XLA's own gradient (`select_and_scatter`) writes indices of every pixel on a CPU, and takes as long
as the convolutions beside it; this one keeps a byte for every output and is one fused loop.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.errors import InputError
from nnlab.kernels.batch import of_images
from nnlab.kernels.window import Window
from nnlab.ops.windows import Padding, pair, window_of


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
    taps = pair("window", window)
    if x.ndim != 4:
        raise InputError(f"max_pool takes x [batch, height, width, channels], not {x.shape}.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"max_pool expects a floating x, not {x.dtype}.")
    if not 0 < taps[0] * taps[1] < 128:
        raise InputError(f"max_pool needs a window of 1 to 127 pixels, not {taps[0]} by {taps[1]}.")
    strides = pair("strides", taps if strides is None else strides)
    if isinstance(padding, str) and padding.upper() == "CEIL":
        padding = [(0, _lacking(*sizes)) for sizes in zip(x.shape[1:3], taps, strides, strict=True)]
    moves = window_of(x.shape, taps, strides, padding, 1)
    return of_images(lambda x: _max_pool(x, taps, moves), x)


def _lacking(size: int, taps: int, stride: int) -> int:
    """Pixels by which the last of the windows that begin within the image leaves it."""
    windows = max(0, math.ceil((size - taps) / stride)) + 1
    if (windows - 1) * stride >= size:
        windows -= 1
    return max(0, (windows - 1) * stride + taps - size)


def _pixels(x: jax.Array, taps: tuple[int, int], moves: Window) -> list[jax.Array]:
    """The first, second, … pixel of all windows, row by row."""
    height, width = moves.positions(x.shape[1:], taps)
    (down, right), pads = moves.strides, moves.padding
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    rows, columns = (height - 1) * down + 1, (width - 1) * right + 1
    return [
        x[:, i : i + rows : down, j : j + columns : right]
        for i in range(taps[0])
        for j in range(taps[1])
    ]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _max_pool(x: jax.Array, taps: tuple[int, int], moves: Window) -> jax.Array:
    return functools.reduce(jnp.maximum, _pixels(x, taps, moves))


def _max_pool_fwd(x, taps, moves):
    y: Any = _max_pool(x, taps, moves)
    first = jnp.zeros(y.shape, jnp.int8)
    for place, pixel in reversed(list(enumerate(_pixels(x, taps, moves)))):
        first = jnp.where(pixel < y, first, jnp.int8(place))
    return y, (first, x[:0])


def _max_pool_bwd(taps, moves, residuals, g):
    first, x = residuals
    (down, right), pads = moves.strides, moves.padding
    height, width = (size + sum(sides) for size, sides in zip(x.shape[1:3], pads, strict=True))
    if moves.strides == taps:  # windows do not overlap
        n, rows, columns, channels = g.shape
        places = jnp.arange(taps[0] * taps[1], dtype=jnp.int8).reshape(taps[0], 1, taps[1], 1)
        chosen = first[:, :, None, :, None] == places
        dx = jnp.where(chosen, g[:, :, None, :, None], 0)
        dx = dx.reshape(n, rows * down, columns * right, channels)
        dx = jnp.pad(dx, ((0, 0), (0, height - dx.shape[1]), (0, width - dx.shape[2]), (0, 0)))
    else:
        every = [(i, j) for i in range(taps[0]) for j in range(taps[1])]
        parts = [
            _spread(jnp.where(first == place, g, 0), tap, moves, (height, width))
            for place, tap in enumerate(every)
        ]
        dx = functools.reduce(jnp.add, parts)
    (top, _), (left, _) = pads
    return (dx[:, top : top + x.shape[1], left : left + x.shape[2]],)


def _spread(g: jax.Array, offset: tuple[int, int], moves: Window, size: tuple[int, int]):
    """g [batch, out height, out width, channels] at one tap's pixels of an image of that size."""
    sides = []
    for outputs, low, stride, pixels in zip(g.shape[1:3], offset, moves.strides, size, strict=True):
        sides.append((low, pixels - low - (outputs - 1) * stride - 1, stride - 1))
    return lax.pad(g, jnp.zeros((), g.dtype), ((0, 0, 0), *sides, (0, 0, 0)))


_max_pool.defvjp(_max_pool_fwd, _max_pool_bwd)
