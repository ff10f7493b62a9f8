r"""Convolutions whose products are sums of the bits of floats.

The bits of a float, as an integer, are its logarithm up to a scale and an error below a tenth:
:math:`2^e (1 + m)` has exponent e and fraction m one after the other. So their sum is nearly a
product. Where it leaves the numbers from 2^-125 to 2^127, as it does for zeros, infinities and NaN,
the product itself is taken. With float64 everything is alike, with that type's sizes.

The loops over these sums are those of own terms (`nnlab.kernels.terms`), native ones on a CPU. The
form without a carry from fractions to exponents needs none: with X and W the signed powers of two
below x and w,

.. math:: X W (1 + m_x + m_w + c) = x\, W + X\, (w - (1 - c)\, W),

which makes it a convolution of twice as many inputs, exact in every term.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nnlab.kernels.convolution import convolve
from nnlab.kernels.terms import Term, term_conv
from nnlab.kernels.window import Window


def _layout(dtype) -> tuple[np.dtype, int, int]:
    """The integer of a float's size, its bits of fraction, and its exponent of 1."""
    info = jnp.finfo(dtype)
    return np.dtype(f"int{info.bits}"), info.nmant, info.maxexp - 1


@functools.cache
def _sum_of_bits(shift: int) -> Term:
    def value(x, w):
        whole, fraction, bias = _layout(x.dtype)
        one = (bias << fraction) - (1 << (fraction - shift))
        bits = lax.bitcast_convert_type(x, whole) - np.asarray(one, whole)
        added = lax.bitcast_convert_type(bits + lax.bitcast_convert_type(w, whole), x.dtype)
        product = x * w
        size = jnp.abs(product)
        return jnp.where((size >= 2.0 ** (2 - bias)) & (size < 2.0**bias), added, product)

    return Term(value)


def _power_below(x: jax.Array) -> jax.Array:
    whole, fraction, _ = _layout(x.dtype)
    bits = lax.bitcast_convert_type(x, whole) & np.asarray(-1 << fraction, whole)
    return lax.bitcast_convert_type(bits, x.dtype)


def _normal(x: jax.Array) -> jax.Array:
    return jnp.where(jnp.abs(x) < jnp.finfo(x.dtype).tiny, jnp.zeros((), x.dtype), x)


@functools.partial(jax.jit, static_argnames=("window", "shift", "carry"))
def l_mul_conv(
    x: jax.Array, kernel: jax.Array, *, window: Window, shift: int, carry: bool
) -> jax.Array:
    """Sum approximate products over every window of `x` and every filter.

    Args:
        x: images [batch, height, width, in], float32 or wider.
        kernel: filters [kh, kw, in, out], dtype of `x`.
        window: strides, padding (with zeros, which add nothing) and dilation.
        shift: a product has 2^-shift of its power of two added.
        carry: whether fractions of 1 and above raise the exponent, as a sum of integers does.

    Returns:
        [batch, out height, out width, out], dtype of `x`. Subnormal operands count as 0.
    """
    x, kernel = _normal(x), _normal(kernel)
    if carry:
        return term_conv(x, kernel, window=window, term=_sum_of_bits(shift))
    power, of_w = _power_below(x), _power_below(kernel)
    rest = jnp.where(jnp.isinf(kernel), kernel, kernel - (1 - 2.0**-shift) * of_w)
    both = jnp.concatenate([x, power], axis=-1)
    return convolve(both, jnp.concatenate([of_w, rest], axis=-2), window)
