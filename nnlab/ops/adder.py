r"""Adder products: L1 distance in place of the inner product.

.. math:: y_{po} = -\sum_k |x_{pk} - w_{ko}|                                          (1)

for every position p, input k of its window and filter o. A pixel of padding is a zero like any
other and contributes -\|w\|. The reverse-mode rules are choices, each the true gradient of a
potential :math:`\sum_k \phi(x_{pk} - w_{ko})` with respect to one argument:

=============  ======  ===============================================  =============
cotangent of   rule    equation                                         potential
=============  ======  ===============================================  =============
w (filter)     full    dw_ko = sum_p g_po (x_pk - w_ko)            (2)  -d^2 / 2
w (filter)     sign    dw_ko = sum_p g_po sgn(x_pk - w_ko)         (3)  -abs(d)
x (input)      clip    dx_pk = sum_o g_po clip(w_ko - x_pk, -1, 1) (4)  -huber_1(d)
x (input)      full    dx_pk = sum_o g_po (w_ko - x_pk)            (5)  -d^2 / 2
x (input)      sign    dx_pk = sum_o g_po sgn(w_ko - x_pk)         (6)  -abs(d)
=============  ======  ===============================================  =============

with sgn(0) = 0. AdderNet trains with (2) and (4); (3) with (6) is the gradient of (1) itself.
Rules (2) and (5) need no L1 kernel: (2) is the convolution's filter gradient minus
:math:`w \sum_p g_p`, (5) its input gradient minus x times the sum of the cotangents that see it.
Both lose digits when x and w share an offset much larger than their spread, as any difference of
large sums does. Sums are taken in float32 at least, whatever the dtype of the operands.

The published code also rescales the filter gradient of a layer. That is an optimiser's business
here: `nnlab.optim.adder_rate`.

References:
    Chen et al., AdderNet: Do We Really Need Multiplications in Deep Learning?, CVPR 2020,
    https://arxiv.org/abs/1912.13200, eq. 2 for (1), eqs. 3 to 6 for the rules.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.kernels import adder as kernels
from nnlab.kernels.convolution import convolve_filter_gradient, convolve_input_gradient
from nnlab.kernels.derivatives import reverse_rule
from nnlab.ops.front import check_dense_operands, over_rows, over_windows
from nnlab.ops.windows import Padding

FilterRule = Literal["full", "sign"]
InputRule = Literal["clip", "full", "sign"]


def adder_dense(
    x: jax.Array,
    kernel: jax.Array,
    *,
    filter_rule: FilterRule = "full",
    input_rule: InputRule = "clip",
) -> jax.Array:
    """Compute negative L1 distances (1) of vectors to the columns of `kernel`.

    Args:
        x: inputs [..., in], floating.
        kernel: weights [in, out], floating.
        filter_rule: cotangent of `kernel`: "full" (2) or "sign" (3).
        input_rule: cotangent of `x`: "clip" (4), "full" (5) or "sign" (6).

    Returns:
        [..., out], in the promoted dtype of the operands.

    Raises:
        ValueError: ranks, sizes or rules do not fit.
        TypeError: an operand is not floating.
    """
    check_dense_operands("adder_dense", x, kernel)
    rules: Any = dict(filter_rule=filter_rule, input_rule=input_rule)
    return over_rows(functools.partial(adder_conv, **rules), x, kernel)


def adder_conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
    filter_rule: FilterRule = "full",
    input_rule: InputRule = "clip",
) -> jax.Array:
    """Compute negative L1 distances (1) of windows of images, sequences or volumes to filters.

    Args:
        x: images [batch, height, width, in], sequences [batch, time, in] or volumes
            [batch, depth, height, width, in], floating.
        kernel: filters [kh, kw, in, out], [k, in, out] or [kd, kh, kw, in, out], floating.
        strides: one for all axes, or one for each, as in (height, width).
        padding: "SAME", "VALID", "SAME_LOWER", "FULL" (every pixel meets every tap), an integer for
            every side, or a pair for each axis, as in ((top, bottom), (left, right)); none
            negative.
        kernel_dilation: distance of neighbouring taps, one for all axes, or one for each.
        filter_rule: cotangent of `kernel`: "full" (2) or "sign" (3).
        input_rule: cotangent of `x`: "clip" (4), "full" (5) or "sign" (6).

    Returns:
        [batch, out height, out width, out], or with the axes of `x` in place of these two, in the
        promoted dtype of the operands; sizes as in `jax.lax.conv_general_dilated`.

    Raises:
        ValueError: ranks, sizes, window or rules do not fit.
        TypeError: an operand is not floating.
    """
    check_rules(filter_rule, input_rule)
    return over_windows(
        "adder_conv",
        lambda *operands: _adder_conv(*operands, filter_rule, input_rule),
        x,
        kernel,
        strides=strides,
        padding=padding,
        kernel_dilation=kernel_dilation,
    )


def check_rules(filter_rule: str, input_rule: str) -> None:
    """Raise a ValueError unless both are rules of the table above."""
    if filter_rule not in ("full", "sign"):
        raise ValueError(f'filter_rule must be "full" or "sign", not {filter_rule!r}.')
    if input_rule not in ("clip", "full", "sign"):
        raise ValueError(f'input_rule must be "clip", "full" or "sign", not {input_rule!r}.')


def _widen(*arrays: jax.Array) -> list[jax.Array]:
    """The arrays in the dtype that sums are taken in: float32 or wider."""
    return [a.astype(jnp.promote_types(a.dtype, jnp.float32)) for a in arrays]


@functools.partial(reverse_rule, nondiff_argnums=(2, 3, 4))
def _adder_conv(x, kernel, window, filter_rule, input_rule) -> jax.Array:
    return kernels.adder_conv(*_widen(x, kernel), window=window).astype(x.dtype)  # (1)


def _adder_conv_fwd(x, kernel, window, filter_rule, input_rule):
    return _adder_conv(x, kernel, window, filter_rule, input_rule), (x, kernel)


def _full_filter_gradient(g, x, w, window):
    products = convolve_filter_gradient(g, x, w, window)
    if (
        w.shape[:2] == x.shape[1:3] == (1, 1)
    ):  # dense: as matrices, which XLA rounds as it always has
        dw, matrix = (lax.squeeze(a, (0, 1)) for a in (products, w))
        return (dw - matrix * lax.squeeze(g, (1, 2)).sum(axis=0)[None])[None, None]
    return products - w * lax.broadcast_to_rank(g.sum(axis=(0, 1, 2)), 4)


def _adder_conv_bwd(window, filter_rule, input_rule, residuals, g):
    x, w, g = _widen(*residuals, g)
    if filter_rule == "full":
        dw = _full_filter_gradient(g, x, w, window)  # (2)
    else:
        dw = kernels.adder_conv_filter_gradient(g, x, w, window=window)  # (3)
    if input_rule == "full":
        ones, pixels = (
            jnp.ones((*w.shape[:2], 1, 1), w.dtype),
            jnp.zeros((*x.shape[:3], 1), x.dtype),
        )
        seen = convolve_input_gradient(g.sum(axis=3, keepdims=True), pixels, ones, window)
        dx = convolve_input_gradient(g, x, w, window) - x * seen  # (5)
    else:
        dx = kernels.adder_conv_input_gradient(g, x, w, rule=input_rule, window=window)  # (4), (6)
    return dx.astype(residuals[0].dtype), dw.astype(residuals[1].dtype)


_adder_conv.defvjp(_adder_conv_fwd, _adder_conv_bwd)
