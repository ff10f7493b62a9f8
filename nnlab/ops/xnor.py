r"""XNOR-Net: signs of inputs and weights, with a scale for each filter and each position.

.. math:: y_{po} = \alpha_o K_p \sum_k \mathrm{sgn}(x_{pk})\, \mathrm{sgn}(w_{ko})          (1)

    \alpha_o = \frac{1}{n} \sum_k |w_{ko}|, \qquad
    K_p = \text{mean over the taps of the window of } \frac{1}{c} \sum_c |x_c|               (2)

with sgn 0 = +1, n the terms of a filter and c the inputs of a pixel; a pixel of padding is 0 in
both sums, as in every convolution here. The sums over taps are made once for all filters, by
additions; an output costs two multiplications, by K and by alpha.

===========  =====  ==============================================  ============================
cotangent    rule   equation                                        potential
===========  =====  ==============================================  ============================
of x                g_b 1[abs(x) <= 1], g_b that of sgn x      (3)  clip(x, -1, 1), K held
of w         paper  g_q (1/n + alpha 1[abs(w) <= 1])           (4)  w/n + alpha clip(w, -1, 1)
of w         code   g_q (1/n + alpha 1[abs(w) < 1]) (1 - 1/c)  (5)  the same times 1 - 1/c
===========  =====  ==============================================  ============================

where g_q is the cotangent of q = alpha sgn w, and alpha is held constant in the potentials. Of the
derivative of alpha, (4) keeps only the part of a weight with respect to itself. The published code
keeps the mean of weights over inputs at 0, and (5) has that mean's part in the derivative; weights
clipped to 1 or -1 get the first term only. For SGD that code multiplies by n, which Adam cancels.

References:
    Rastegari et al., XNOR-Net, ECCV 2016, https://arxiv.org/abs/1603.05279, section 3, eqs. 6 and
    11, and its code (util.lua).
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.ops.binary import binary_conv, sign_ste
from nnlab.ops.front import check_operands
from nnlab.ops.products import signed_conv
from nnlab.ops.scaled import by_filter, scaled_conv, signs_by_filter

FilterRule = Literal["paper", "code"]


def xnor_conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    input_scale: bool = True,
    filter_rule: FilterRule = "paper",
    **window,
) -> jax.Array:
    """Convolve signs and scale the result by filter and by position (1).

    Args:
        x: images, sequences or volumes [batch, *sizes, in], floating.
        kernel: real weights [*taps, in, out], floating.
        input_scale: whether to multiply by K; without it K is 1, as in the published code.
        filter_rule: "paper" (4) or "code" (5).
        **window: strides, padding and kernel_dilation of `nnlab.ops.convolution.conv`, whose
            result and errors these are.

    Raises:
        ValueError: also for another `filter_rule`, and where (5) meets a single input, whose
            weights would never move.
    """
    if filter_rule not in ("paper", "code"):
        raise ValueError(f'filter_rule must be "paper" or "code", not {filter_rule!r}.')
    check_operands("xnor_conv", x, kernel)
    if filter_rule == "code" and kernel.shape[-2] == 1:
        raise ValueError(f'filter_rule "code" needs 2 inputs or more, not kernel {kernel.shape}.')
    y = scaled_conv(
        sign_ste(x),  # (3)
        kernel,
        product=binary_conv,
        quantizer=signs_by_filter,
        rule=_paper_rule if filter_rule == "paper" else _code_rule,
        **window,
    )
    return y * _input_scale(lax.stop_gradient(x), kernel.shape, window) if input_scale else y


def _input_scale(x, kernel_shape, window):
    terms = math.prod(kernel_shape[:-1])
    sums = jnp.abs(x).sum(axis=-1, keepdims=True)
    taps = jnp.ones((*kernel_shape[:-2], 1, 1), x.dtype)
    return signed_conv(sums, taps, **window) * (1 / terms)  # (2)


def _paper_rule(w, scale, g):
    inside = (jnp.abs(w) <= 1).astype(w.dtype)
    return g * (1 / math.prod(w.shape[:-1]) + by_filter(scale, w) * inside)  # (4)


def _code_rule(w, scale, g):
    inside = (jnp.abs(w) < 1).astype(w.dtype)
    slope = 1 / math.prod(w.shape[:-1]) + by_filter(scale, w) * inside
    return g * slope * (1 - 1 / w.shape[-2])  # (5)
