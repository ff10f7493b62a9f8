r"""Lp adder products: distances between the squared one that is easy to train and the L1 of adders.

.. math:: y_{no} = -\sum_k |x_{nk} - w_{ko}|^p, \qquad 1 \le p \le 2                   (1)

for every position n, input k of its window and filter o. A pixel of padding is a zero like any
other. Training starts at p = 2 and lowers it to 1; at every p the rules are the true gradients, so
none of them is a stand-in for another distance's.

============  =====================================================  ==========
cotangent of  rule, with d = x_nk - w_ko                             potential
============  =====================================================  ==========
w (filter)    sum_n g_no p sgn(d) abs(d)^(p-1)                  (2)  -abs(d)^p
x (input)     -sum_o g_no p sgn(d) abs(d)^(p-1)                 (3)  -abs(d)^p
p             0: it is scheduled, not learnt
============  =====================================================  ==========

with sgn(0) = 0, so that p = 1 is the adder with both of its "sign" rules and p = 2 the squared
distance. At p = 1 it also is the adder's fast kernel, whether p is a number or traced; at other p a
term takes two transcendental functions and some 30 times as long. Sums are taken in float32 at
least, whatever the dtype of the operands.

References:
    Chen et al., Universal Adder Neural Networks, 2021, https://arxiv.org/abs/2105.14202.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from nnlab.kernels import adder as l1
from nnlab.kernels import lp_adder as kernels
from nnlab.kernels.derivatives import reverse_rule
from nnlab.ops.adder import adder_conv
from nnlab.ops.front import over_windows
from nnlab.ops.squared_distance import squared_distance_conv


def lp_adder_conv(x: jax.Array, kernel: jax.Array, *, p: ArrayLike, **window) -> jax.Array:
    """Compute negative sums of powers of distances (1), of windows to filters.

    Args:
        x: images, sequences or volumes [batch, *sizes, in], floating.
        kernel: filters [*taps, in, out], floating.
        p: exponent from 1 to 2. An array, traced or not, may change without a new compilation; a
            Python number is part of the program, which for 1 and 2 has no power in it.
        **window: strides, padding and kernel_dilation of `nnlab.ops.adder.adder_conv`.

    Returns:
        [batch, *out sizes, out], in the promoted dtype of the operands.

    Raises:
        ValueError: ranks, sizes or window do not fit, p is not a scalar or not from 1 to 2.
        TypeError: an operand is not floating.
    """
    if jnp.ndim(p):
        raise ValueError(f"lp_adder_conv expects a scalar p, not one of shape {jnp.shape(p)}.")
    if isinstance(p, (int, float)):
        if not 1 <= p <= 2:
            raise ValueError(f"lp_adder_conv expects p from 1 to 2, not {p}.")
        if p == 1:
            return adder_conv(x, kernel, **window, filter_rule="sign", input_rule="sign")
        if p == 2:
            return squared_distance_conv(x, kernel, **window)
    return over_windows("lp_adder_conv", _powers, x, kernel, jnp.asarray(p), **window, widen=True)


def _powers(x: jax.Array, kernel: jax.Array, p: jax.Array, window) -> jax.Array:
    return _lp_adder_conv(x, kernel, p.astype(x.dtype), window)


@functools.partial(reverse_rule, nondiff_argnums=(3,))
def _lp_adder_conv(x, kernel, p, window) -> jax.Array:
    return lax.cond(  # (1)
        p == 1,
        lambda x, p, w: l1.adder_conv(x, w, window=window),
        functools.partial(kernels.lp_adder_conv, window=window),
        *(x, p, kernel),
    )


def _lp_adder_conv_fwd(x, kernel, p, window):
    return _lp_adder_conv(x, kernel, p, window), (x, kernel, p)


def _lp_adder_conv_bwd(window, residuals, g):
    x, w, p = residuals

    def signs(g, x, p, w):
        dx = l1.adder_conv_input_gradient(g, x, w, rule="sign", window=window)
        return dx, l1.adder_conv_filter_gradient(g, x, w, window=window)

    def powers(g, x, p, w):
        dx = kernels.lp_adder_conv_input_gradient(g, x, p, w, window=window)  # (3)
        return dx, kernels.lp_adder_conv_filter_gradient(g, x, p, w, window=window)  # (2)

    dx, dw = lax.cond(p == 1, signs, powers, g, x, p, w)
    return dx, dw, jnp.zeros_like(p)


_lp_adder_conv.defvjp(_lp_adder_conv_fwd, _lp_adder_conv_bwd)
