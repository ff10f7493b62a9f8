r"""One Triton kernel, in Pallas, for sums of terms over windows: the adder convolution on a GPU.

It sums, over the taps and channels k of a window, a term of a vector (one number for every position
p of a tile) and of a row of weights (one for every column o):

.. math:: y_{po} = -\sum_k |v_{pk} - w_{ko}|, \qquad
          y_{po} = \sum_k v_{pk}\, r(w_{ko} - x_{po}), \quad r = \mathrm{HardTanh}, \mathrm{sgn}.

Patches are never in memory: there is one copy of what is walked over, with its padding and with
channels first. The copy makes the inner loop lean, for neighbouring positions are neighbours in
memory and no load needs a mask.

An Nvidia GPU does the first term in two additions, :math:`d = v - w` and :math:`y - |d|`, the
second in four instructions. That is the limit, and loads and addresses compete with it for issue
slots. What it asks of Triton, read from the machine code that Triton 3.9 makes for an H100:

*   Vectors and weights are loaded for one k at a time. A tensor of fewer elements than the program
    has threads counts as cheap, so each thread loads what it needs in the layout of the sums, the
    weights four at a time. A larger one goes through shared memory, with two barriers each. Hence
    `Tile.positions` and `Tile.columns` stay below 32 times `Tile.warps`.
*   A program owns `rows` × `across` such tiles, which sets the ratio of arithmetic to loads.
*   The layout of the sums is that of the load they start from; starting from a constant, a thread
    would own one column. The first kind therefore starts from a load that is always masked.
*   `_bounded` tells that indices do not overflow, which lets constants of the unrolled loop move
    into the load instructions; without it every load costs three more instructions.
*   The terms are written in PTX. Triton's own absolute value flushes denormals, which costs an
    instruction, and the minimum and maximum of Pallas lose NaN.

So most of the instructions in the loop are those of the terms. Nothing has been timed yet.
JAX 0.12 runs this lowering of Pallas and announces its end.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas
from jax.experimental.pallas import triton

LARGEST = 2**28  # elements of an array, whose indices then stay in 32 bits


class Tile(NamedTuple):
    """What a program sums: `rows` × `across` tiles of `positions` × `columns`, powers of two.

    A trip of its loop unrolls about `terms` terms of the sum.
    """

    positions: int = 64
    columns: int = 16
    rows: int = 4
    across: int = 1
    warps: int = 4
    terms: int = 12


class Walk(NamedTuple):
    """Where position (i, j) meets tap (a, b): at `first + (i, j) * strides + (a, b) * steps`."""

    first: tuple[int, int]
    strides: tuple[int, int]
    steps: tuple[int, int]


def choose_tile(positions: int, columns: int) -> Tile:
    """The largest tile for sums of [positions, columns] that leaves programs to fill a large GPU.

    From counts of instructions and registers (about 80 for the first kind of sum and 128 for the
    second, of at most 255), not from measurements.
    """
    for rows, across in ((2, 2), (4, 1), (2, 1)):
        tile = Tile(rows=rows, across=across)
        programs = -(-positions // (tile.positions * rows)) * -(-columns // (tile.columns * across))
        if programs >= 512 and columns > tile.columns * (across - 1):
            return tile
    return Tile(rows=1)


# A term's arguments (sum, vector, weight, pixel), all of a tile's shape: in PTX for the GPU, and in
# JAX for the interpreter. These keep NaN.
_PTX = {
    "distance": "sub.f32 d, $2, $3; abs.f32 d, d; sub.f32 $0, $1, d;",
    "clip": (
        "sub.f32 d, $3, $4; min.NaN.f32 d, d, 0f3F800000; max.NaN.f32 d, d, 0fBF800000;"
        " fma.rn.f32 $0, $2, d, $1;"
    ),
    "sign": (
        ".reg .pred p; sub.f32 d, $3, $4; setp.gt.f32 p, d, 0f00000000; @p mov.f32 d, 0f3F800000;"
        " setp.lt.f32 p, d, 0f00000000; @p mov.f32 d, 0fBF800000; fma.rn.f32 $0, $2, d, $1;"
    ),
}
_PLAIN = {
    "distance": lambda total, v, w: total - jnp.abs(v - w),
    "clip": lambda total, g, w, x: total + g * jnp.clip(w - x, -1, 1),
    "sign": lambda total, g, w, x: total + g * jnp.sign(w - x),
}


def _term(rule: str, interpret: bool, total: jax.Array, *operands: jax.Array) -> jax.Array:
    operands = tuple(jnp.broadcast_to(a, total.shape) for a in operands)
    if interpret:
        return _PLAIN[rule](total, *operands)
    [result] = triton.elementwise_inline_asm(
        f"{{ .reg .f32 d; {_PTX[rule]} }}",
        args=[total, *operands],
        constraints=",".join(["=f", *"f" * (1 + len(operands))]),
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(total.shape, total.dtype)],
    )
    return result


def sum_terms(
    rule: str,
    vectors: jax.Array,
    matrix: jax.Array,
    pixels: jax.Array | None,
    positions: tuple[int, ...],
    walk: Walk,
    tile: Tile | None,
    interpret: bool,
) -> jax.Array:
    """Sums [*positions, out] of terms of `rule`.

    Args:
        vectors: what `walk` goes over, [channels, batch, height, width].
        matrix: weights [taps down, taps across, channels, out].
        pixels: operand of a term that stays the same in a sum, [*positions, out].
        positions: (batch, rows, columns).
    """
    channels, _, height, width = vectors.shape
    kh, kw, _, out = matrix.shape
    count = math.prod(positions)
    tile = tile or choose_tile(count, out)
    # A trip does one row of taps of `size` channels. Spare channels are zero, and so are their
    # terms; sums of spare columns and positions (copies of the last) are not stored.
    blocks = -(-channels * kw // max(kw, tile.terms))
    size = -(-channels // blocks)
    span = tile.columns * tile.across
    spare = blocks * size - channels, -out % span
    dtype = vectors.dtype  # widened in the copies that are made anyway, not in the loop
    vectors, matrix = vectors.astype(jnp.float32), matrix.astype(jnp.float32)
    vectors = jnp.pad(vectors, ((0, spare[0]), (0, 0), (0, 0), (0, 0)))
    matrix = jnp.pad(matrix, ((0, 0), (0, 0), *((0, s) for s in spare)))
    matrix = matrix.reshape(kh, kw, blocks, size, -1).transpose(2, 0, 3, 1, 4)
    plane, line = vectors[0].size, matrix.shape[-1]

    def body(vector_ref, matrix_ref, *refs):
        *pixel_refs, sum_ref = refs
        each = range(tile.rows)
        first = pallas.program_id(0) * (tile.positions * tile.rows)
        column = pallas.program_id(1) * span
        ps = [first + r * tile.positions + jnp.arange(tile.positions) for r in each]
        cs = [column + c * tile.columns + jnp.arange(tile.columns) for c in range(tile.across)]
        tiles = [(p[:, None], c[None]) for p in ps for c in cs]
        inside = [(p < count) & (c < out) for p, c in tiles]
        places = [p * out + c for p, c in tiles]

        def corner(p):
            rest, j = _divide(jnp.minimum(p, count - 1), positions[2])
            image, i = _divide(rest, positions[1])
            row = image * height + i * walk.strides[0] + walk.first[0]
            return row * width + j * walk.strides[1] + walk.first[1]

        corners = [corner(p) for p in ps]

        def load(ref, index, mask=None):
            other = None if mask is None else 0.0
            return triton.load(ref.at[index], mask=mask, other=other).astype(jnp.float32)

        if pixel_refs:
            held = [[load(pixel_refs[0], *place)] for place in zip(places, inside, strict=True)]
            start = [jnp.zeros_like(pixel) for [pixel] in held]
        else:
            held = [[]] * len(tiles)
            start = [load(sum_ref, place, place < 0) for place in places]

        def trip(t, sums):
            block, row = _divide(t, kh)
            offset = block * (size * plane) + row * (walk.steps[0] * width)
            starts = [_bounded(corner + offset, vectors.size) for corner in corners]
            lines = [_bounded(t * (size * kw * line) + c, matrix.size) for c in cs]
            lines = [
                triton.max_contiguous(pallas.multiple_of(c, tile.columns), tile.columns)
                for c in lines
            ]
            for k in range(size):
                for j in range(kw):
                    vs = [load(vector_ref, s + (k * plane + j * walk.steps[1])) for s in starts]
                    ws = [load(matrix_ref, c + (k * kw + j) * line) for c in lines]
                    pairs = [(v[:, None], w[None]) for v in vs for w in ws]
                    sums = [
                        _term(rule, interpret, total, v, w, *pixel)
                        for total, (v, w), pixel in zip(sums, pairs, held, strict=True)
                    ]
            return sums

        sums = lax.fori_loop(0, blocks * kh, trip, start)
        for place, mask, total in zip(places, inside, sums, strict=True):
            triton.store(sum_ref.at[place], total.astype(sum_ref.dtype), mask=mask)

    operands = [vectors, matrix] + ([] if pixels is None else [pixels])
    sums = pallas.pallas_call(
        body,
        out_shape=jax.ShapeDtypeStruct(
            (count * out,), dtype, manual_axis_type=jax.typeof(vectors).manual_axis_type
        ),
        grid=(-(-count // (tile.positions * tile.rows)), line // span),
        compiler_params=triton.CompilerParams(num_warps=tile.warps, num_stages=1),
        interpret=interpret,
        name=f"adder_{rule}",
    )(*(operand.reshape(-1) for operand in operands))
    return sums.reshape(*positions, out)


def _divide(a: jax.Array, b: int) -> tuple[jax.Array, jax.Array]:
    """Quotient and rest of numbers that are not negative."""
    divisor = jnp.full_like(a, b)
    return lax.div(a, divisor), lax.rem(a, divisor)


def _bounded(index: jax.Array, size: int) -> jax.Array:
    """`index`, of an array of `size` elements, unchanged; the compiler learns that it is small."""
    return index & (2 ** (size - 1).bit_length() - 1)
