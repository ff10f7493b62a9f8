r"""Pooling by one pixel of each window: maxima, their places and the way back, and random draws.

Pixels of a window p are numbered k row by row, each channel by itself.

=======================  ==========================================  ==============================
op                       value                                       cotangent goes to
=======================  ==========================================  ==============================
`max_pool`               max over k of x_k                      (1)  the first largest pixel
`max_pool_with_indices`  (1), and where the first largest pixel is   as `max_pool`
`max_unpool`             y at its index, 0 elsewhere            (2)  g at its index
`stochastic_pool`        x_l, drawn with P(l = k) = x_k / sum x (3)  the pixel that was drawn
`expected_pool`          sum x_k^2 / sum x_k                    (4)  true gradient
=======================  ==========================================  ==============================

The rule of (1) is the gradient wherever one pixel is largest; at ties it makes XLA's choice. The
potential of (2) is the unpooled image itself, with equal indices adding up. (3) and (4) count a
negative pixel as 0, are 0 in a window without any pixel above 0, and send such pixels no cotangent.

A window's choice is kept as one byte, and one fused loop takes a cotangent back to it; XLA's own
gradient (`select_and_scatter`) writes indices of every pixel on a CPU and takes as long as the
convolutions beside it.

Means over windows are `flax.linen.avg_pool`, and the mean of a whole image is `x.mean((1, 2))`.

References:
    Badrinarayanan et al., SegNet, TPAMI 2017, https://arxiv.org/abs/1511.00561, section 3, for
    unpooling; indices and (2) are those of PyTorch's `MaxPool2d(return_indices=True)` and
    `MaxUnpool2d`.
    Zeiler & Fergus, Stochastic pooling for regularization of deep convolutional neural networks,
    ICLR 2013, https://arxiv.org/abs/1301.3557, eqs. 4, 5 and 6.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.errors import InputError
from nnlab.kernels.batch import auto_sharded
from nnlab.kernels.derivatives import linear_map, reverse_rule
from nnlab.kernels.window import Window
from nnlab.ops.keys import check_key
from nnlab.ops.windows import Padding, pair, window_of

Taps = tuple[int, int]  # height and width of a window


def max_pool(
    x: jax.Array,
    window: int | Sequence[int] = 2,
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """Return the largest value of every window.

    Args:
        x: images [batch, height, width, channels], floating.
        window: height and width of a window, at most 127 pixels together.
        strides: one for both axes, or (height, width); by default the window, so that windows lie
            side by side.
        padding: as for `nnlab.ops.adder.adder_conv`, or "CEIL": "VALID" with as much padding below
            and to the right as the last window needs that begins within the image, as in Caffe and
            in PyTorch's `ceil_mode`. A pixel of padding is never the largest.

    Returns:
        [batch, out height, out width, channels], dtype of `x`. A NaN in a window is its maximum,
        and the window's first pixel then gets the cotangent.

    Raises:
        ValueError: `x` does not have four axes, or the window is empty, too large or does not fit.
        TypeError: `x` is not floating.
    """
    taps, moves = _windows("max_pool", x, window, strides, padding)
    return auto_sharded(lambda x: _max_pool(x, taps, moves), x)


def max_pool_with_indices(
    x: jax.Array,
    window: int | Sequence[int] = 2,
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> tuple[jax.Array, jax.Array]:
    """Return the maxima of `max_pool` and where each one is.

    Args:
        x, window, strides, padding: as for `max_pool`.

    Returns:
        The maxima, and int32 indices of their shape: row · width + column of the first pixel of
        `x` that is equal to the maximum. If that is NaN, the first pixel of the window.

    Raises:
        ValueError, TypeError: as for `max_pool`.
    """
    taps, moves = _windows("max_pool_with_indices", x, window, strides, padding)
    y = max_pool(x, window, strides, padding)
    indices = auto_sharded(
        functools.partial(_indices, taps=taps, moves=moves),
        lax.stop_gradient(x),
        lax.stop_gradient(y),
    )
    return y, indices


def max_unpool(y: jax.Array, indices: jax.Array, size: int | Sequence[int]) -> jax.Array:
    """Return images of 0 with the values of `y` at `indices`.

    Args:
        y: [batch, height, width, channels].
        indices: integers in the shape of `y`, from `max_pool_with_indices` of images of `size`. An
            index outside the image puts its value nowhere.
        size: height and width of the result, or one number for both.

    Returns:
        [batch, *size, channels], dtype of `y`. If windows overlap, several values may have one
        index: one of them is kept, and each gets that pixel's cotangent.

    Raises:
        ValueError: `y` does not have four axes, `indices` another shape, or `size` is not positive.
        TypeError: `indices` are not integers.
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


def stochastic_pool(
    key: jax.Array,
    x: jax.Array,
    window: int | Sequence[int] = 2,
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """Draw a pixel of every window by (3), for training.

    Args:
        key: random key; one draw for each window and channel.
        x: images [batch, height, width, channels], floating, not negative.
        window, strides, padding: as for `max_pool`; a pixel of padding is 0.

    Returns:
        [batch, out height, out width, channels], dtype of `x`; computed in float32 or wider. A
        window whose sum is not finite gives that sum, and its pixels get no cotangent.

    Raises:
        ValueError, TypeError: as for `max_pool`.
    """
    check_key(key)
    taps, moves = _windows("stochastic_pool", x, window, strides, padding)
    shape = x.shape[0], *moves.positions(x.shape[1:], taps), x.shape[3]
    uniform = jax.random.uniform(key, shape, jnp.promote_types(x.dtype, jnp.float32))
    return auto_sharded(lambda x, uniform: _stochastic_pool(x, uniform, taps, moves), x, uniform)


def expected_pool(
    x: jax.Array,
    window: int | Sequence[int] = 2,
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """Return the mean (4) of every window, for evaluation; all else as for `stochastic_pool`."""
    taps, moves = _windows("expected_pool", x, window, strides, padding)

    def means(x):
        pixels = _positive_pixels(x, taps, moves)
        total = sum(pixels)
        squares = sum(pixel * pixel for pixel in pixels)
        return (squares / jnp.where(total > 0, total, 1)).astype(x.dtype)  # (4)

    return auto_sharded(means, x)


def _windows(
    name: str,
    x: jax.Array,
    window: int | Sequence[int],
    strides: int | Sequence[int] | None,
    padding: Padding,
) -> tuple[Taps, Window]:
    """Check the arguments of the op `name`; return the size of a window and how it moves."""
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
    """Return by how many pixels the last window that begins within the image leaves it."""
    windows = max(0, math.ceil((size - taps) / stride)) + 1
    if (windows - 1) * stride >= size:
        windows -= 1
    return max(0, (windows - 1) * stride + taps - size)


def _pixels(x: jax.Array, taps: Taps, moves: Window, padded: float) -> list[jax.Array]:
    """Return the first, second, … pixel of all windows, row by row; `padded` outside the image."""
    height, width = moves.positions(x.shape[1:], taps)
    (down, right), pads = moves.strides, moves.padding
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=padded)
    rows, columns = (height - 1) * down + 1, (width - 1) * right + 1
    return [
        x[:, i : i + rows : down, j : j + columns : right]
        for i in range(taps[0])
        for j in range(taps[1])
    ]


def _to_chosen(
    g: jax.Array, chosen: jax.Array, taps: Taps, moves: Window, size: Sequence[int]
) -> jax.Array:
    """Add each window's g [batch, out height, out width, channels] to the pixel that it chose.

    `chosen`, int8 in the shape of g, numbers the pixel in its window, -1 for none; `size` is the
    height and width of the images that are returned.
    """
    (down, right), pads = moves.strides, moves.padding
    height, width = (pixels + sum(sides) for pixels, sides in zip(size, pads, strict=True))
    if moves.strides == taps:  # windows do not overlap
        n, rows, columns, channels = g.shape
        places = jnp.arange(taps[0] * taps[1], dtype=jnp.int8).reshape(taps[0], 1, taps[1], 1)
        places = lax.broadcast_to_rank(places, 6)
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
    """Put g [batch, out height, out width, channels] at one tap's pixels of an image of `size`."""
    sides = []
    for outputs, low, stride, pixels in zip(g.shape[1:3], offset, moves.strides, size, strict=True):
        sides.append((low, pixels - low - (outputs - 1) * stride - 1, stride - 1))
    return lax.pad(g, jnp.zeros((), g.dtype), ((0, 0, 0), *sides, (0, 0, 0)))


def _first_largest(x: jax.Array, y: jax.Array, taps: Taps, moves: Window) -> jax.Array:
    """Number the first pixel in each window that is not below its maximum `y`, int8."""
    first = jnp.zeros(y.shape, jnp.int8)
    for place, pixel in reversed(list(enumerate(_pixels(x, taps, moves, -jnp.inf)))):
        first = jnp.where(pixel < y, first, jnp.int8(place))
    return first


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _max_pool(x: jax.Array, taps: Taps, moves: Window) -> jax.Array:
    return functools.reduce(jnp.maximum, _pixels(x, taps, moves, -jnp.inf))  # (1)


@_max_pool.defjvp
def _max_pool_jvp(taps, moves, primals, tangents):
    [x] = primals
    y: Any = _max_pool(x, taps, moves)
    size = x.shape[1:3]

    def run(residuals, operands):
        [first], [t] = residuals, operands
        chosen, *others = _pixels(t, taps, moves, 0.0)
        for place, pixel in enumerate(others, 1):
            chosen = jnp.where(first == place, pixel, chosen)
        return [chosen]

    def transpose(residuals, cotangents):
        [first], [g] = residuals, cotangents
        return [_to_chosen(g, first, taps, moves, size)]

    return y, linear_map(run, transpose, [_first_largest(x, y, taps, moves)], tangents, [y])[0]


def _indices(x: jax.Array, y: jax.Array, taps: Taps, moves: Window) -> jax.Array:
    first = _first_largest(x, y, taps, moves).astype(jnp.int32)
    (down, right), ((top, _), (left, _)) = moves.strides, moves.padding
    rows = jnp.arange(y.shape[1])[None, :, None, None] * down - top + first // taps[1]
    columns = jnp.arange(y.shape[2])[None, None, :, None] * right - left + first % taps[1]
    # A window of nothing but NaN or -inf chooses its first pixel, which may be one of padding.
    rows, columns = rows.clip(0, x.shape[1] - 1), columns.clip(0, x.shape[2] - 1)
    return (rows * x.shape[2] + columns).astype(jnp.int32)


def _places(indices: jax.Array, size: tuple[int, int]):
    """Index arrays [batch, pixels, channels] by `indices`."""
    batch, _, _, channels = indices.shape
    flat = lax.collapse(indices, 1, 3)
    flat = jnp.where(flat < 0, size[0] * size[1], flat)  # not Python's index from the end
    return jnp.arange(batch)[:, None, None], flat, jnp.arange(channels)[None, None]


@functools.partial(reverse_rule, nondiff_argnums=(2,))
def _max_unpool(y: jax.Array, indices: jax.Array, size: tuple[int, int]) -> jax.Array:
    batch, _, _, channels = y.shape
    images = jnp.zeros((batch, size[0] * size[1], channels), y.dtype)
    values = lax.collapse(y, 1, 3)
    images = images.at[_places(indices, size)].set(values, mode="drop")
    return images.reshape(batch, *size, channels)


def _max_unpool_fwd(y, indices, size):
    return _max_unpool(y, indices, size), indices


def _max_unpool_bwd(size, indices, g):
    dy = lax.collapse(g, 1, 3).at[_places(indices, size)].get(mode="fill", fill_value=0)  # (2)
    return dy.reshape(indices.shape), None


_max_unpool.defvjp(_max_unpool_fwd, _max_unpool_bwd)


def _positive_pixels(x: jax.Array, taps: Taps, moves: Window) -> list[jax.Array]:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return _pixels(jax.nn.relu(wide), taps, moves, 0.0)


def _choose(x, uniform, taps, moves):
    """Return the pixels drawn by (3) and their numbers, int8, -1 for none."""
    pixels = _positive_pixels(x, taps, moves)
    sums = list(itertools.accumulate(pixels))
    total = sums[-1]
    y, chosen = jnp.zeros_like(total), jnp.full(total.shape, -1, jnp.int8)
    for place in reversed(range(len(pixels))):
        reached = uniform * total < sums[place]
        y = jnp.where(reached, pixels[place], y)
        chosen = jnp.where(reached, jnp.int8(place), chosen)
    finite = jnp.isfinite(total)
    return jnp.where(finite, y, total).astype(x.dtype), jnp.where(finite, chosen, jnp.int8(-1))


@functools.partial(reverse_rule, nondiff_argnums=(2, 3))
def _stochastic_pool(x: jax.Array, uniform: jax.Array, taps: Taps, moves: Window) -> jax.Array:
    return _choose(x, uniform, taps, moves)[0]


def _stochastic_pool_fwd(x, uniform, taps, moves):
    y, chosen = _choose(x, uniform, taps, moves)
    return y, (chosen, x[:0])


def _stochastic_pool_bwd(taps, moves, residuals, g):
    chosen, x = residuals
    return _to_chosen(g, chosen, taps, moves, x.shape[1:3]), None


_stochastic_pool.defvjp(_stochastic_pool_fwd, _stochastic_pool_bwd)
