r"""The adder in Winograd's form: distances of transformed tiles, fewer of them.

Winograd's F(2×2, 3×3) computes the 2×2 outputs of a 3×3 convolution from a 4×4 tile d of the image
and a filter g with 16 products in place of 36. With distances in place of its products,

.. math:: Y = A^T \Big[ -\sum_c \big| G g_c G^T - B^T d_c B \big| \Big] A               (1)

takes 16 distances a channel where the adder takes 36, and additions around them. This is *not* the
adder's value: an absolute value does not pass through the transforms as a product does. It is an
arithmetic of its own, which has to be trained as such.

Whatever signs are given to the rows of :math:`A^T = [[1, 1, 1, 0], [0, 1, -1, -1]]`, with the same
change of sign in the rows of :math:`B^T`, products give the same convolution. Distances do not: in
an output of (1) each of nine distances has the sign :math:`A_{iu} A_{jv}`, with the standard
matrices nine of them plus in the first output, three in two others and five in the last, so that
the four pixels of a tile have means of their own. The rows of :math:`A^T` used here have two plus
and one minus each,

    A^T = [-1  1  1  0]     G = [ 1    0    0 ]     B^T = [-1  0  1  0]
          [ 0  1 -1  1]         [1/2  1/2  1/2]           [ 0  1  1  0]                  (2)
                                [1/2 -1/2  1/2]           [ 0 -1  1  0]
                                [ 0    0    1 ]           [ 0 -1  0  1]

and all outputs five plus and four minus. The gradients are those of (1), with the adder's rules for
the distances (`nnlab.ops.adder`, by default "full" and "clip") and the true ones for the
transforms. Sums are taken in float32 at least, whatever the dtype of the operands.

References:
    Li et al., Winograd Algorithm for AdderNet, ICML 2021, https://arxiv.org/abs/2105.05530, for (1)
    and the balance; the matrices (2) are derived here from that demand. Lavin & Gray, Fast
    Algorithms for Convolutional Neural Networks, CVPR 2016, https://arxiv.org/abs/1509.09308.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from nnlab.kernels.batch import of_images, vary_alike
from nnlab.kernels.window import Window
from nnlab.ops.adder import (
    FilterRule,
    InputRule,
    adder_conv,
    adder_dense,
)
from nnlab.ops.windows import Padding, check_operands, window_of

Rows = Sequence[jax.Array]


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
    """Winograd's form of the adder (1) for 3×3 windows next to each other, or the adder itself.

    Windows of another size, stride or dilation have no such form and go to `adder_conv`, of which
    arguments, result and errors are.

    Args:
        x: images [batch, height, width, in], floating.
        kernel: filters [kh, kw, in, out], floating.
        strides, padding, kernel_dilation: as of `nnlab.ops.adder.adder_conv`.
        filter_rule, input_rule: cotangents of the distances of transformed filters and tiles.

    Returns:
        [batch, out height, out width, out], in the promoted dtype of the operands.

    Raises:
        ValueError: ranks, sizes, window or rules do not fit.
        TypeError: an operand is not floating.
    """
    check_operands("winograd_adder_conv", x, kernel)
    window = window_of(x.shape, kernel.shape, strides, padding, kernel_dilation)
    if kernel.shape[:2] != (3, 3) or window.strides != (1, 1) or window.dilation != (1, 1):
        return adder_conv(
            x,
            kernel,
            strides=window.strides,
            padding=window.padding,
            kernel_dilation=window.dilation,
            filter_rule=filter_rule,
            input_rule=input_rule,
        )
    x, kernel = vary_alike(x, kernel)
    dtype = jnp.promote_types(x.dtype, kernel.dtype)
    wide = jnp.promote_types(dtype, jnp.float32)

    def distances(x: jax.Array, w: jax.Array) -> jax.Array:
        return adder_dense(x, w, filter_rule=filter_rule, input_rule=input_rule)

    def op(x: jax.Array, w: jax.Array) -> jax.Array:
        return _winograd(distances, x, w, window)

    return of_images(op, x.astype(wide), kernel.astype(wide)).astype(dtype)


def _winograd(
    distances: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    kernel: jax.Array,
    window: Window,
) -> jax.Array:
    height, width = window.positions(x.shape[1:], kernel.shape)
    rows, columns = -(-height // 2), -(-width // 2)  # of tiles
    (top, _), (left, _) = window.padding
    below = (top, 2 * rows + 2 - top - x.shape[1]), (left, 2 * columns + 2 - left - x.shape[2])
    x = jnp.pad(x, ((0, 0), *below, (0, 0)))

    tiles = _both(
        _tile, [[x[:, i::2, j::2][:, :rows, :columns] for j in range(4)] for i in range(4)]
    )
    filters = _both(_filter, [[kernel[i, j] for j in range(3)] for i in range(3)])
    m = jax.vmap(distances)(  # the 16 sums over channels, [16, batch, rows, columns, out]
        jnp.stack([a for row in tiles for a in row]), jnp.stack([a for row in filters for a in row])
    )
    (a, b), (c, d) = _both(_output, [[m[4 * u + v] for v in range(4)] for u in range(4)])
    even, odd = jnp.stack([a, b], axis=3), jnp.stack([c, d], axis=3)
    y = jnp.stack([even, odd], axis=2)  # [batch, rows, 2, columns, 2, out]
    y = y.reshape(len(x), 2 * rows, 2 * columns, kernel.shape[3])
    return y[:, :height, :width]


def _both(transform: Callable[[Rows], Rows], grid: Sequence[Rows]) -> list[Rows]:
    """A transform along both axes of a grid of arrays, T m T^T."""
    columns = [transform(column) for column in zip(*grid, strict=True)]
    return [transform(row) for row in zip(*columns, strict=True)]


def _tile(d: Rows) -> Rows:  # B^T of (2)
    return d[2] - d[0], d[1] + d[2], d[2] - d[1], d[3] - d[1]


def _filter(g: Rows) -> Rows:  # G
    outer = g[0] + g[2]
    return g[0], (outer + g[1]) * 0.5, (outer - g[1]) * 0.5, g[2]


def _output(m: Rows) -> Rows:  # A^T
    return m[1] + m[2] - m[0], m[1] - m[2] + m[3]
