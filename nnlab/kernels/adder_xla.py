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
Narrow floats are widened to float32 first. The three sums themselves, `negative_sum`, `input_sum`
and `filter_sum`, take any term, and serve other arithmetics as well.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from nnlab.kernels.window import Window

_TERMS = 32  # unrolled into one expression; 16 to 48 measured alike on AVX2 and AVX-512


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
    n, _, _, channels = x.shape
    kh, kw, _, features = kernel.shape
    (sh, sw), pads, (dh, dw) = window
    out_h, out_w = window.positions(x.shape[1:], kernel.shape)
    acc = _zeros((n, out_h, out_w, features), x).astype(dtype)
    if 0 in (acc.size, kernel.size):
        return acc

    blocks, size = _blocks(channels, kw)
    extra = blocks * size - channels  # channels of zeros on both sides, whose terms are zero
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
        terms = [
            term(
                rows[:, :, j * dw : j * dw + (out_w - 1) * sw + 1 : sw, c, None],
                lax.broadcast_to_rank(taps[j, c], 4),
            )
            for j in range(kw)
            for c in range(size)
        ]
        return acc - _chained_sum(terms), *window_at(t + 1)

    return lax.fori_loop(0, kh * blocks, trip, (acc, *window_at(0)))[0]


@_widening
def adder_conv_input_gradient(
    g: jax.Array, x: jax.Array, kernel: jax.Array, *, rule: Literal["clip", "sign"], window: Window
) -> jax.Array:
    """See `nnlab.kernels.adder.adder_conv_input_gradient`."""
    return input_sum(lambda x, w: _RULES[rule](w - x), g, x, kernel, window)


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
    if 0 in (g.size, kernel.size):
        return jnp.zeros_like(x)

    rows = max(out_h + (kh - 1) * dh // sh, -(-(top + height) // sh))
    columns = max(out_w + (kw - 1) * dw // sw, -(-(left + width) // sw))
    reach = (kw - 1) * dw // sw
    spare = ((0, 0, 0), (top, rows * sh - height - top, 0), (left, columns * sw - width - left, 0))
    zero = jnp.zeros((), x.dtype)
    phased = lax.pad(x, zero, (*spare, (0, 0, 0))).reshape(n, rows, sh, columns, sw, channels)
    blocks, size = _blocks(features, kw)
    extra = blocks * size - features
    g = jnp.pad(g, ((0, 0), (0, 0), (reach, columns - out_w), (0, extra)))
    kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, 0), (0, extra))).swapaxes(2, 3)

    def row_of_taps(row, dx):
        corner = (0, row * dh // sh, row * dh % sh, 0, 0, 0)
        shape = (n, out_h, 1, columns, sw, channels)
        pixels = lax.dynamic_slice(phased, corner, shape)[:, :, 0]

        def block_at(block):
            return (
                lax.dynamic_slice_in_dim(g, block * size, size, axis=3),
                lax.dynamic_slice(kernel, (row, 0, block * size, 0), (1, kw, size, channels))[0],
            )

        def phase(p, cotangents, taps):
            terms = [
                cotangents[:, :, reach - j * dw // sw :, o, None][:, :, :columns]
                * term(pixels[:, :, :, p], lax.broadcast_to_rank(taps[j, o], 4))
                for j in range(kw)
                if j * dw % sw == p
                for o in range(size)
            ]
            return _chained_sum(terms) if terms else jnp.zeros_like(pixels[:, :, :, p])

        def trip(block, carry):
            acc, *operands = carry
            acc = acc + jnp.stack([phase(p, *operands) for p in range(sw)], axis=3)
            return acc, *block_at(block + 1)

        acc = lax.fori_loop(0, blocks, trip, (jnp.zeros_like(pixels), *block_at(0)))[0]
        total = lax.dynamic_slice(dx, corner, shape) + acc[:, :, None]
        return lax.dynamic_update_slice(dx, total, corner)

    dx = lax.fori_loop(0, kh, row_of_taps, jnp.zeros_like(phased))
    dx = dx.reshape(n, rows * sh, columns * sw, channels)
    return dx[:, top : top + height, left : left + width]


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
    lanes = max(1, min(64, 2048 // (channels * features), positions // _TERMS))
    trips = -(-positions // (lanes * _TERMS))
    spare = ((0, trips * lanes * _TERMS - positions), (0, 0))
    cotangents = jnp.pad(g.reshape(positions, features), spare)
    cotangents = cotangents.reshape(trips, lanes, _TERMS, features)

    def tap(index):
        corner = (0, index // kw * dh, index % kw * dw, 0)
        shape = (n, (out_h - 1) * sh + 1, (out_w - 1) * sw + 1, channels)
        pixels = lax.dynamic_slice(x, corner, shape)[:, ::sh, ::sw].reshape(positions, channels)
        pixels = jnp.pad(pixels, spare).reshape(trips, lanes, _TERMS, channels)
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
