r"""XLA bodies of the adder convolution's three kernels: the reference, and what runs everywhere.

They visit kernel rows and blocks of channels in a `fori_loop`. One trip unrolls about `_TERMS`
terms of the sum into one fused, vectorised expression, so that nothing of size
[positions, in, out] exists: above inputs and outputs there are one window of the input and one
accumulator. Terms are added in four partial chains, which hides the latency of the addition.

The operands of a trip are carried from the trip before. That keeps XLA from fusing the dynamic
slice into the arithmetic, where its index clamping undoes vectorisation, at few channels most.

Distances are taken as written, :math:`|x - w|`, which is exact for large offsets, infinity and
NaN; on the CPU it runs at the speed of the identity :math:`2\sum\max(x, w) - \sum x - \sum w`.

Arguments and results are those of the functions of the same names in `nnlab.kernels.adder`.
Narrow floats are widened to float32 first. The sums themselves, `window_sum`, `negative_sum`,
`input_sum` and `filter_sum`, take any term, and serve other arithmetics as well.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from nnlab.kernels.window import Window

_TERMS = 32  # unrolled into one expression; 16 to 48 measured alike on AVX2 and AVX-512
_LANES = 2**14  # accumulators of `filter_sum`; XLA keeps each of `_TERMS` as large where it is dear


def _blocks(channels: int, taps: int) -> tuple[int, int]:
    """Number and size of channel blocks so that a block times `taps` is about `_TERMS` terms."""
    count = -(-channels * taps // _TERMS)
    size = -(-channels // count)
    return -(-channels // size), size


def _chained_sum(terms: Sequence[jax.Array]) -> jax.Array:
    chains = list(terms[:4])
    for index, term in enumerate(terms[4:]):
        chains[index % 4] = chains[index % 4] + term
    return functools.reduce(jnp.add, chains)


def _clip(d: jax.Array) -> jax.Array:
    # A CPU has one instruction for each of these; they keep NaN, for which `jnp.clip` takes more.
    d = jnp.where(d > 1, jnp.ones((), d.dtype), d)
    return jnp.where(d < -1, -jnp.ones((), d.dtype), d)


def _sign(d: jax.Array) -> jax.Array:
    d = jnp.where(d > 0, jnp.ones((), d.dtype), d)
    return jnp.where(d < 0, -jnp.ones((), d.dtype), d)


_RULES: dict[str, Callable[[jax.Array], jax.Array]] = {"clip": _clip, "sign": _sign}

Term = Callable[[jax.Array, jax.Array], jax.Array]  # of inputs and weights


def _widening(body: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    @functools.wraps(body)
    def widened(*operands, **options):
        dtype = operands[0].dtype
        wide = jnp.promote_types(dtype, jnp.float32)
        return body(*(a.astype(wide) for a in operands), **options).astype(dtype)

    return widened


def _at_once(x: jax.Array, kernel: jax.Array, term: Term, dtype: DTypeLike) -> jax.Array:
    """The terms [batch, 1, 1, in, out] of a dense layer whose sizes are names (`jax.export`).

    Names cannot be divided into blocks; a compiler fuses these terms into the sum over them.
    """
    return term(x[..., None], lax.squeeze(kernel, (0, 1))[None, None, None]).astype(dtype)


def _zeros(shape: tuple[int, ...], like: jax.Array) -> jax.Array:
    """Zeros that `jax.shard_map` takes to vary over the axes that `like` varies over."""
    return jnp.broadcast_to(like[:0].sum(), shape)


@_widening
def adder_conv(x: jax.Array, kernel: jax.Array, *, window: Window) -> jax.Array:
    """See `nnlab.kernels.adder.adder_conv`."""
    return negative_sum(lambda x, w: jnp.abs(x - w), x, kernel, window, x.dtype)


def negative_sum(
    term: Term,
    x: jax.Array,
    kernel: jax.Array,
    window: Window,
    dtype: DTypeLike,
) -> jax.Array:
    """`-sum_k term(x_k, w_k)` over every window; a term is of `dtype`, and 0 for two zeros."""
    return window_sum(term, x, kernel, window, dtype, sign=-1, zeros_add_nothing=True)


def window_sum(
    term: Term,
    x: jax.Array,
    kernel: jax.Array,
    window: Window,
    dtype: DTypeLike,
    *,
    sign: Literal[1, -1] = 1,
    zeros_add_nothing: bool = False,
) -> jax.Array:
    """`sign * sum_k term(x_k, w_k)` over every window; a term is of `dtype`.

    It is faster where `term(0, 0)` is known to be 0, since blocks are filled up with such terms.
    """
    n, _, _, channels = x.shape
    kh, kw, _, features = kernel.shape
    if not isinstance(channels, int):
        return sign * _at_once(x, kernel, term, dtype).sum(-2)
    (sh, sw), pads, (dh, dw) = window
    out_h, out_w = window.positions(x.shape[1:], kernel.shape)
    acc = _zeros((n, out_h, out_w, features), x).astype(dtype)
    if 0 in (acc.size, kernel.size):
        return acc

    blocks, size = _blocks(channels, kw)
    extra = blocks * size - channels  # channels of zeros on both sides, whose terms do not count
    x = jnp.pad(x, ((0, 0), *pads, (0, extra)))
    kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, extra), (0, 0)))

    def window_at(t):
        row, block = t // blocks, t % blocks
        rows = (n, (out_h - 1) * sh + 1, x.shape[2], size)
        return (
            lax.dynamic_slice(x, (0, row * dh, 0, block * size), rows)[:, ::sh],
            lax.dynamic_slice(kernel, (row, 0, block * size, 0), (1, kw, size, features))[0],
        )

    def trip(t, carry):
        acc, rows, taps = carry

        def term_at(j, c):
            inputs = rows[:, :, j * dw : j * dw + (out_w - 1) * sw + 1 : sw, c, None]
            value = term(inputs, lax.broadcast_to_rank(taps[j, c], 4))
            if zeros_add_nothing or c < size - extra:
                return value
            return jnp.where(t % blocks < blocks - 1, value, jnp.zeros((), dtype))

        total = _chained_sum([term_at(j, c) for j in range(kw) for c in range(size)])
        return acc + total if sign == 1 else acc - total, *window_at(t + 1)

    return lax.fori_loop(0, kh * blocks, trip, (acc, *window_at(0)))[0]


@_widening
def adder_conv_input_gradient(
    g: jax.Array, x: jax.Array, kernel: jax.Array, *, rule: Literal["clip", "sign"], window: Window
) -> jax.Array:
    """See `nnlab.kernels.adder.adder_conv_input_gradient`."""
    return input_sum(lambda x, w: _RULES[rule](w - x), g, x, kernel, window)


class _Phase(NamedTuple):
    """Every `stride`-th pixel along an axis, and the taps through which windows hold them.

    Attributes:
        first: the first pixel.
        pixels: their number.
        taps: tap number and, between the pixel's and the window's place, the distance in windows.
        spare: how many windows to add before and after those that there are (fewer than none: to
            leave out), so that tap i of pixel k reads number `reach - distance_i + k`.
    """

    first: int
    pixels: int
    taps: list[tuple[int, int]]
    spare: tuple[int, int, int]

    @property
    def reach(self) -> int:
        return self.taps[-1][1]


def _phases(size: int, windows: int, taps: int, stride: int, pad: int, dilation: int):
    """The phases along an axis that have pixels and taps."""
    for phase in range(stride):
        first = (phase - pad) % stride
        pixels = -(-(size - first) // stride)
        held = [divmod(i * dilation, stride) for i in range(taps)]
        found = [(i, distance) for i, (distance, rest) in enumerate(held) if rest == phase]
        if found and pixels > 0:
            before = found[-1][1] - (first + pad) // stride
            after = pixels + found[-1][1] - before - windows
            yield _Phase(first, pixels, found, (before, after, 0))


def input_sum(
    term: Term, g: jax.Array, x: jax.Array, kernel: jax.Array, window: Window
) -> jax.Array:
    """`sum_o g_o term(x, w_o)` over the windows that hold a pixel; all of one dtype.

    Strides are handled by phases: a padded row number is `stride * quotient + phase`, and a tap
    touches one phase only, so no cotangent is spread out with zeros.
    """
    n, height, width, channels = x.shape
    kh, kw, _, features = kernel.shape
    _, out_h, out_w, _ = g.shape
    (sh, sw), ((top, _), (left, _)), (dh, dw) = window
    if not isinstance(features, int):
        return (g[..., None, :] * _at_once(x, kernel, term, x.dtype)).sum(-1)
    if 0 in (g.size, kernel.size):
        return jnp.zeros_like(x)

    blocks, size = _blocks(features, kw)
    extra = blocks * size - features
    # A slope may be infinite at 0, and 0 times that is NaN.
    kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, 0), (0, extra)), mode="edge").swapaxes(2, 3)
    zero = jnp.zeros((), x.dtype)

    def sum_of(rows: _Phase, columns: _Phase) -> jax.Array:
        pixels = x[:, rows.first :: sh, columns.first :: sw]
        around = lax.pad(g, zero, [(0, 0, 0), rows.spare, columns.spare, (0, extra, 0)])
        tap_of_row, distances = (jnp.asarray(numbers) for numbers in zip(*rows.taps, strict=True))

        def block_at(t):
            row, block = t // blocks, t % blocks
            corner = (0, rows.reach - distances[row], 0, block * size)
            shape = (n, rows.pixels, around.shape[2], size)
            taps = (tap_of_row[row], 0, block * size, 0)
            return (
                lax.dynamic_slice(around, corner, shape),
                lax.dynamic_slice(kernel, taps, (1, kw, size, channels))[0],
            )

        def trip(t, carry):
            acc, cotangents, taps = carry
            terms = [
                cotangents[:, :, start : start + columns.pixels, o, None]
                * term(pixels, lax.broadcast_to_rank(taps[j, o], 4))
                for j, start in ((j, columns.reach - distance) for j, distance in columns.taps)
                for o in range(size)
            ]
            return acc + _chained_sum(terms), *block_at(t + 1)

        start = (_zeros(pixels.shape, x), *block_at(0))
        sums = lax.fori_loop(0, len(rows.taps) * blocks, trip, start)[0]
        spread = [
            (phase.first, length - phase.first - (phase.pixels - 1) * step - 1, step - 1)
            for phase, length, step in ((rows, height, sh), (columns, width, sw))
        ]
        return lax.pad(sums, zero, [(0, 0, 0), *spread, (0, 0, 0)])

    vertical = list(_phases(height, out_h, kh, sh, top, dh))
    horizontal = list(_phases(width, out_w, kw, sw, left, dw))
    parts = [sum_of(rows, columns) for rows in vertical for columns in horizontal]
    return functools.reduce(jnp.add, parts) if parts else jnp.zeros_like(x)


@_widening
def adder_conv_filter_gradient(
    g: jax.Array, x: jax.Array, kernel: jax.Array, *, window: Window
) -> jax.Array:
    """See `nnlab.kernels.adder.adder_conv_filter_gradient`."""
    return filter_sum(lambda x, w: _sign(x - w), g, x, kernel, window)


def filter_sum(
    term: Term, g: jax.Array, x: jax.Array, kernel: jax.Array, window: Window
) -> jax.Array:
    """`sum_p g_p term(x_p, w)` over all positions, padded pixels included; all of one dtype."""
    n, _, _, channels = x.shape
    kh, kw, _, features = kernel.shape
    _, out_h, out_w, _ = g.shape
    (sh, sw), pads, (dh, dw) = window
    if 0 in (g.size, kernel.size):
        return jnp.zeros_like(kernel)

    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    positions = n * out_h * out_w
    # Sums in `lanes` separate accumulators, enough of them to fill vectors and threads.
    lanes = max(1, min(256, _LANES // (channels * features), positions // _TERMS))
    trips = -(-positions // (lanes * _TERMS))
    spare = ((0, trips * lanes * _TERMS - positions), (0, 0))
    cotangents = jnp.pad(g.reshape(positions, features), spare)
    cotangents = cotangents.reshape(trips, lanes, _TERMS, features)

    def tap(index):
        corner = (0, index // kw * dh, index % kw * dw, 0)
        shape = (n, (out_h - 1) * sh + 1, (out_w - 1) * sw + 1, channels)
        pixels = lax.dynamic_slice(x, corner, shape)[:, ::sh, ::sw].reshape(positions, channels)
        pixels = jnp.pad(pixels, spare, mode="edge").reshape(trips, lanes, _TERMS, channels)
        weights = lax.broadcast_to_rank(kernel[index // kw, index % kw], 3)

        def block_at(t):
            return pixels[t], cotangents[t]

        def trip(t, carry):
            acc, xs, gs = carry
            terms = [gs[:, p, None, :] * term(xs[:, p, :, None], weights) for p in range(_TERMS)]
            return acc + _chained_sum(terms), *block_at(t + 1)

        acc = _zeros((lanes, channels, features), x)
        return lax.fori_loop(0, trips, trip, (acc, *block_at(0)))[0].sum(axis=0)

    return lax.map(tap, jnp.arange(kh * kw)).reshape(kernel.shape)
