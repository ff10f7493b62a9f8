r"""The adder in Winograd's form: distances of transformed tiles, and fewer of them.

Winograd's F(2×2, 3×3) computes the 2×2 outputs of a 3×3 convolution from a 4×4 tile d of the image
and a filter g with 16 products instead of 36. With distances instead of its products,

.. math:: Y = A^T \Big[ -\sum_c \big| G g_c G^T - B^T d_c B \big| \Big] A               (1)

takes 16 distances a channel where the adder takes 36, and additions around them. This is *not* the
adder's value: an absolute value does not pass through the transforms as a product does. It is an
arithmetic of its own, and has to be trained as such.

The transforms act along each axis by itself. Along one axis, F(2, 3) takes 4 distances instead of
6; along three, 64 instead of 216. Equation (1) then has one or three of each matrix.

Products give the same convolution whatever signs the rows of
:math:`A^T = [[1, 1, 1, 0], [0, 1, -1, -1]]` get, as long as the rows of :math:`B^T` change with
them. Distances do not: in an output of (1) each of nine distances has the sign
:math:`A_{iu} A_{jv}`. With the standard matrices nine of them are plus in the first output, three
in two others and five in the last, so that the four pixels of a tile have different means. The rows
of :math:`A^T` used here have two plus and one minus each,

    A^T = [-1  1  1  0]     G = [ 1    0    0 ]     B^T = [-1  0  1  0]
          [ 0  1 -1  1]         [1/2  1/2  1/2]           [ 0  1  1  0]                  (2)
                                [1/2 -1/2  1/2]           [ 0 -1  1  0]
                                [ 0    0    1 ]           [ 0 -1  0  1]

and all outputs five plus and four minus, or in any number of axes one plus more than minus. The
gradients are those of (1), with the adder's rules for the distances (`nnlab.ops.adder`, by default
"full" and "clip") and the true ones for the transforms. Sums are taken in float32 at least,
whatever the dtype of the operands.

References:
    Li et al., Winograd Algorithm for AdderNet, ICML 2021, https://arxiv.org/abs/2105.05530, for (1)
    and the balance; the matrices (2) are derived here from that demand. Lavin & Gray, Fast
    Algorithms for Convolutional Neural Networks, CVPR 2016, https://arxiv.org/abs/1509.09308.
"""

import collections
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from nnlab.kernels.batch import auto_sharded, match_varying
from nnlab.ops.adder import FilterRule, InputRule, adder_conv, adder_dense, check_rules
from nnlab.ops.front import check_operands
from nnlab.ops.windows import Moves, Padding, moves_of

Line = Sequence[jax.Array]
Grid = dict[tuple[int, ...], jax.Array]


def winograd_adder_conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
    filter_rule: FilterRule = "full",
    input_rule: InputRule = "clip",
) -> jax.Array:
    """Compute Winograd's form of the adder (1) for neighbouring windows of three taps an axis.

    Windows of another size, stride or dilation have no such form and go to `adder_conv`, whose
    arguments, result and errors these are.

    Args:
        x: images, sequences or volumes [batch, *sizes, in], floating.
        kernel: filters [*taps, in, out], floating.
        strides, padding, kernel_dilation: see `nnlab.ops.adder.adder_conv`.
        filter_rule, input_rule: cotangents of the distances of transformed filters and tiles.

    Returns:
        [batch, *out sizes, out], in the promoted dtype of the operands.

    Raises:
        ValueError: ranks, sizes, window or rules do not fit.
        TypeError: an operand is not floating.
    """
    check_operands("winograd_adder_conv", x, kernel)
    check_rules(filter_rule, input_rule)
    taps = kernel.shape[:-2]
    moves = moves_of(x.shape[1:-1], taps, strides, padding, kernel_dilation)
    rules: Any = dict(filter_rule=filter_rule, input_rule=input_rule)
    if {*taps} != {3} or {*moves.strides, *moves.dilation} != {1}:
        options: Any = dict(zip(("strides", "padding", "kernel_dilation"), moves, strict=True))
        return adder_conv(x, kernel, **options, **rules)
    x, kernel = match_varying(x, kernel)
    dtype = jnp.promote_types(x.dtype, kernel.dtype)
    wide = jnp.promote_types(dtype, jnp.float32)

    def op(x: jax.Array, w: jax.Array) -> jax.Array:
        return _winograd(lambda d, g: adder_dense(d, g, **rules), x, w, moves)

    return auto_sharded(op, x.astype(wide), kernel.astype(wide)).astype(dtype)


def _winograd(
    distances: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    kernel: jax.Array,
    moves: Moves,
) -> jax.Array:
    axes = kernel.ndim - 2
    sizes = [n + sum(pads) - 2 for n, pads in zip(x.shape[1:-1], moves.padding, strict=True)]
    tiles = [-(-size // 2) for size in sizes]
    pads = [
        (low, 2 * number + 2 - low - size)
        for size, number, (low, _) in zip(x.shape[1:-1], tiles, moves.padding, strict=True)
    ]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))

    def pixels(place):  # every second one along each axis, from `place` on
        starts = (slice(i, i + 2 * number - 1, 2) for i, number in zip(place, tiles, strict=True))
        return x[:, *starts]

    fours, threes = (itertools.product(range(k), repeat=axes) for k in (4, 3))
    d = _along_axes(_tile, {place: pixels(place) for place in fours})
    g = _along_axes(_filter, {place: kernel[place] for place in threes})
    stacked = (jnp.stack([grid[place] for place in sorted(grid)]) for grid in (d, g))
    m = jax.vmap(distances)(*stacked)  # the sums over channels, [4^axes, batch, *tiles, out]
    y = _along_axes(_output, dict(zip(sorted(d), m, strict=True)))

    y = jnp.stack([y[place] for place in sorted(y)]).reshape(*(2,) * axes, *m.shape[1:])
    pairs = [at for axis in range(axes) for at in (axes + 1 + axis, axis)]  # a tile, its outputs
    y = y.transpose(axes, *pairs, 2 * axes + 1)
    y = y.reshape(len(x), *(2 * number for number in tiles), kernel.shape[-1])
    return y[:, *map(slice, sizes)]


def _along_axes(transform: Callable[[Line], Line], grid: Grid) -> Grid:
    """Transform along every axis of a grid of arrays: T m T^T, if there are two."""
    for axis in range(len(next(iter(grid)))):
        lines = collections.defaultdict(list)
        for place in sorted(grid):
            lines[place[:axis], place[axis + 1 :]].append(grid[place])
        grid = {
            (*before, index, *after): array
            for (before, after), line in lines.items()
            for index, array in enumerate(transform(line))
        }
    return grid


def _tile(d: Line) -> Line:  # B^T of (2)
    return d[2] - d[0], d[1] + d[2], d[2] - d[1], d[3] - d[1]


def _filter(g: Line) -> Line:  # G
    outer = g[0] + g[2]
    return g[0], (outer + g[1]) * 0.5, (outer - g[1]) * 0.5, g[2]


def _output(m: Line) -> Line:  # A^T
    return m[1] + m[2] - m[0], m[1] - m[2] + m[3]
