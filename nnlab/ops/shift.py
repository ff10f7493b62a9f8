r"""Shifts in place of products: weights that are signed powers of two, or 0.

DeepShift-Q rounds a real weight w, DeepShift-PS learns an exponent s and a sign g. With b bits:

.. math::
    q(w) = \mathrm{sgn}(w)\, 2^{\mathrm{clip}(\mathrm{round}(\log_2 |w|),\, 2 - 2^{b-1},\, 0)}  (1)

    q(s, g) = \mathrm{sgn}(\mathrm{round}(g))\,
              2^{\mathrm{clip}(\mathrm{round}(s),\, 2 - 2^{b-1},\, 0)}                          (2)

with sgn(0) = 0, so that a zero weight stays zero, and g is 0 from -1/2 to +1/2: rounding is to the
nearest even. The 2^(b-1) - 1 exponents, two signs and the zero make 2^b - 1 codes, which b bits
hold: at 5 bits, the usual choice, exponents go from -14 to 0.

===========  ===========================  ===========================================
cotangent    rule                         potential
===========  ===========================  ===========================================
of w         g_q                     (3)  w
of s         g_q q ln 2              (4)  s q ln 2, q held: that of 2^s at the rounded s
of g         g_q                     (5)  g
===========  ===========================  ===========================================

where g_q is the cotangent of q; the rules hold where an exponent is clipped, too. (5) is that of
the published code, without the factor 2^s that the derivative of the product has. There, inputs are
rounded to fixed point with 16 bits of fraction, which makes the product a shift of integers; here
they stay floats, which `nnlab.costs` counts as words of 32 bits.

References:
    Elhoushi et al., DeepShift: Towards Multiplication-Less Neural Networks, CVPR Workshops 2021,
    https://arxiv.org/abs/1905.13298, and its code (ste.py, modules.py, modules_q.py).
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.kernels.derivatives import reverse_rule
from nnlab.ops.products import shift_conv
from nnlab.ops.straight_through import stored_in, straight_through


def shift_q_weights(w: jax.Array, *, bits: int = 5) -> jax.Array:
    """Round `w` (any shape, floating) to DeepShift-Q's weights (1); rule (3).

    The exponent is exact for float32 and narrower. An infinite weight counts as 1 with its sign, a
    NaN stays a NaN.

    Raises:
        ValueError: bits are not from 2 to 8, or need exponents that the dtype of `w` lacks.
    """
    _check_bits(bits, w.dtype)
    return straight_through(_stored_q(bits)(lax.stop_gradient(w)), w)


def shift_ps_weights(shift: jax.Array, sign: jax.Array, *, bits: int = 5) -> jax.Array:
    """Make DeepShift-PS's weights (2) from exponents and signs (one shape, floating); (4), (5).

    They have the promoted dtype of both. A NaN in either makes a NaN.

    Raises:
        ValueError: see `shift_q_weights`.
    """
    dtype = jnp.promote_types(shift.dtype, sign.dtype)
    _check_bits(bits, dtype)
    return _shift_ps(shift.astype(dtype), sign.astype(dtype), bits)


def shift_q_conv(x: jax.Array, kernel: jax.Array, *, bits: int = 5, **window) -> jax.Array:
    """Convolve `x` [batch, *sizes, in] by the weights (1) of `kernel` [*taps, in, out].

    The options, the result and the errors are those of `nnlab.ops.convolution.conv`; errors are
    also those of `shift_q_weights`.
    """
    return shift_conv(x, shift_q_weights(kernel, bits=bits), **window)


def shift_ps_conv(
    x: jax.Array, shift: jax.Array, sign: jax.Array, *, bits: int = 5, **window
) -> jax.Array:
    """Convolve `x` by the weights (2) of exponents and signs, each [*taps, in, out].

    The options, the result and the errors are those of `nnlab.ops.convolution.conv`; errors are
    also those of `shift_ps_weights`.
    """
    return shift_conv(x, shift_ps_weights(shift, sign, bits=bits), **window)


def lowest_exponent(bits: int) -> int:
    """Lowest exponent of weights of so many bits; the highest is 0."""
    return 2 - 2 ** (bits - 1)


def _check_bits(bits: int, dtype) -> None:
    """Raise a ValueError unless `bits` are from 2 to 8 and `dtype` has normal numbers so small."""
    if bits not in range(2, 9):
        raise ValueError(f"bits must be an integer from 2 to 8, not {bits!r}.")
    if 2.0 ** lowest_exponent(bits) < float(jnp.finfo(dtype).tiny):
        raise ValueError(
            f"{bits} bits make weights down to 2^{lowest_exponent(bits)}, "
            f"but the smallest normal number of {dtype} is {jnp.finfo(dtype).tiny:.3g}."
        )


@functools.cache
def _stored_q(bits: int) -> Callable[[jax.Array], jax.Array]:
    def quantizer(w):
        mantissa, exponent = jnp.frexp(jnp.abs(w).astype(jnp.float32))  # abs(w) = m 2^e, m < 1
        # log2 m rounds up beyond -1/2; the float32 nearest to the root of 1/2 lies below it.
        exponent -= (mantissa <= jnp.float32(math.sqrt(0.5))).astype(exponent.dtype)
        exponent = jnp.where(jnp.isinf(w), 0, exponent)
        return jnp.sign(w) * _power_of_two(exponent, bits, w.dtype)  # (1)

    return stored_in(bits, quantizer)


@functools.cache
def _stored_ps(bits: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    def quantizer(shift, sign):
        exponent = jnp.clip(jnp.round(shift), lowest_exponent(bits), 0)
        weights = jnp.sign(jnp.round(sign)) * _power_of_two(exponent, bits, shift.dtype)  # (2)
        return jnp.where(jnp.isnan(shift), shift, weights)

    return stored_in(bits, quantizer)


def _power_of_two(exponent, bits, dtype):
    """2^clip(exponent), assembled from its bits, because XLA's power need not be exact."""
    exponent = jnp.clip(exponent, lowest_exponent(bits), 0).astype(jnp.int32)
    return lax.bitcast_convert_type((exponent + 127) << 23, jnp.float32).astype(dtype)


@functools.partial(reverse_rule, nondiff_argnums=(2,))
def _shift_ps(shift, sign, bits):
    return _stored_ps(bits)(shift, sign)


def _shift_ps_fwd(shift, sign, bits):
    weights = _shift_ps(shift, sign, bits)
    return weights, weights


def _shift_ps_bwd(bits, weights, g):
    return g * weights * math.log(2), g  # (4), (5)


_shift_ps.defvjp(_shift_ps_fwd, _shift_ps_bwd)
