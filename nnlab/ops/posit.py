r"""Posits: numbers whose precision is highest around 1 and falls towards both ends of the range.

A posit(n, es) is n bits: a sign, a run of equal bits that the opposite bit ends (the regime), es
bits of exponent e, and as many bits of a fraction f as are left. A run of m ones is k = m - 1, a
run of m zeros k = -m. Its value is

.. math:: (-1)^s \, 2^{2^{es} k + e} \, (1 + f).                                         (1)

A negative number is the two's complement of its magnitude's code; 0 is code 0, and the code of the
sign bit alone is no number. The largest magnitude has the code of n - 1 ones and the smallest the
code 1:

.. math:: maxpos = 2^{2^{es} (n - 2)}, \quad minpos = 1 / maxpos.                        (2)

====================  =======================================================  ===============
function              value                                                    cotangent rule
====================  =======================================================  ===============
posit_round(x)        the nearest posit, in the dtype of x                (3)  of x: g     (4)
posit_encode(x)       its code                                                 none
posit_decode(codes)   the number (1)                                           none
====================  =======================================================  ===============

Nearest in (3) refers to bits: the magnitude is written as an endless posit and cut after n bits. It
is rounded up where the rest is more than half a unit of the last bit kept, and to the even code
where it is exactly half. Between posits whose exponent is cut, half a unit is not their arithmetic
mean: between 1024 and 4096, the last two of posit(8, 1), it is 2048. Numbers beyond maxpos round to
it, and numbers nearer to 0 than minpos to minpos: only 0 rounds to 0. NaN and infinities become
NaN. Rule (4) is the true gradient of the potential x.

Inside a regime, exponent and fraction of a posit are the lowest bits of a float's exponent and its
fraction, so that (3) rounds the float's own bits at a place that k determines, and the carry out of
a regime is the first posit of the next one.

References:
    Gustafson & Yonemoto, Beating floating point at its own game, 2017.
    Posit Working Group, Standard for posit arithmetic, 2022, for the rounding; the es of that
    standard is always 2.
"""

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.errors import InputError
from nnlab.ops.straight_through import straight_through

_FRACTION = 23  # bits of a float32, whose exponent is biased by 127
_ONE = 127 << _FRACTION
_DTYPES = {"float32": 126, "bfloat16": 126, "float16": 14}  # the largest maxpos, as a power of two


def posit_round(x: jax.Array, n: int, es: int) -> jax.Array:
    """Round each `x` to the nearest posit(n, es) (3), with the straight-through rule (4).

    A float holds every result exactly, as no posit of a float needs more bits than it has.

    Args:
        x: any shape; float32, bfloat16 or float16. Floats below the normal ones round to minpos.
        n: bits of a posit, from 2 to 16.
        es: bits of its exponent, from 0 to 3.

    Raises:
        InputError: `n` or `es` is another number, or the dtype is another one or, as float16
            from maxpos 2^15 on, too narrow for the format.
    """
    return straight_through(posit_value(lax.stop_gradient(x), n, es), x)


def posit_value(x: jax.Array, n: int, es: int) -> jax.Array:
    """The value of `posit_round` without its rule."""
    bits = _float32_bits(x, n, es)
    magnitude = bits & 0x7FFFFFFF
    rounded = _rounded(magnitude, n, es) + _ONE | bits & ~0x7FFFFFFF
    value = lax.bitcast_convert_type(rounded, jnp.float32)
    value = jnp.where(magnitude < 255 << _FRACTION, value, jnp.nan)
    return jnp.where(magnitude == 0, 0.0, value).astype(x.dtype)


def posit_encode(x: jax.Array, n: int, es: int) -> jax.Array:
    """The codes of `posit_round(x, n, es)`: uint8 up to 8 bits, else uint16, the upper bits 0.

    Arguments and errors are those of `posit_round`.
    """
    bits = _float32_bits(x, n, es)
    magnitude = bits & 0x7FFFFFFF
    t = _rounded(magnitude, n, es)
    k = t >> _FRACTION + es
    run = jnp.where(k >= 0, (1 << n - 1) - (1 << (n - 2 - k)), 1 << (n - 2 + k))
    rest = (t & (1 << _FRACTION + es) - 1) >> _cut(k, n, es)
    code = jnp.where(magnitude == 0, 0, run + rest)
    code = jnp.where(bits < 0, -code, code)
    code = jnp.where(magnitude < 255 << _FRACTION, code, 1 << n - 1)
    return (code & (1 << n) - 1).astype(jnp.uint8 if n <= 8 else jnp.uint16)


def posit_decode(codes: jax.Array, n: int, es: int) -> jax.Array:
    """The numbers (1) of codes, float32; that of no number is NaN.

    Args:
        codes: any shape, integers from 0 to 2^n - 1.
        n, es: as of `posit_round`.

    Raises:
        InputError: `n` or `es` is another number.
    """
    check_format(n, es)
    code = codes.astype(jnp.int32) << 32 - n  # the sign at the top
    body = (jnp.abs(code) << 1).astype(jnp.uint32)
    ones = body >> 31 == 1
    run = lax.clz(jnp.where(ones, ~body, body)).astype(jnp.int32)
    k = jnp.where(ones, run - 1, -run)
    rest = (body << (run + 1).astype(jnp.uint32)) >> 32 - _FRACTION - es
    bits = (k << _FRACTION + es) + rest.astype(jnp.int32) + _ONE
    value = jnp.where(code < 0, -1.0, 1.0) * lax.bitcast_convert_type(bits, jnp.float32)
    value = jnp.where(code == -(2**31), jnp.nan, value)
    return jnp.where(code == 0, 0.0, value)


def _rounded(magnitude: jax.Array, n: int, es: int) -> jax.Array:
    """log2 of a magnitude as its float's bits less those of 1, rounded by (3).

    Their upper bits are k and their lowest 23 + es the exponent and fraction of an endless posit.
    """
    most = 2**es * (n - 2) << _FRACTION
    t = jnp.clip(magnitude - _ONE, -most, most)
    k = t >> _FRACTION + es
    cut = _cut(k, n, es)
    # With the whole exponent cut, the last bit is the one that ends the regime.
    last = jnp.where(cut == _FRACTION + es, k < 0, (t >> cut) & 1 == 1)
    return (t + (1 << (cut - 1)) - 1 + last.astype(t.dtype)) >> cut << cut


def _cut(k: jax.Array, n: int, es: int) -> jax.Array:
    """How many of the lowest 23 + es bits have no place after the regime of k."""
    run = k ^ (k >> 31)  # k or -k - 1, two less than the bits of a regime
    return jnp.minimum(_FRACTION + es - (n - 3) + run, _FRACTION + es)


def _float32_bits(x: jax.Array, n: int, es: int) -> jax.Array:
    check_format(n, es)
    dtype = jnp.dtype(x.dtype).name
    largest = 2**es * (n - 2)
    if largest > _DTYPES.get(dtype, -1):
        raise InputError(
            f"posit({n}, {es}) reaches from 2^-{largest} to 2^{largest}, which is not for "
            f"{dtype}; expected one of {', '.join(k for k, v in _DTYPES.items() if v >= largest)}."
        )
    if dtype == "bfloat16":  # by its bits, as a conversion may lose what is below normal
        return lax.bitcast_convert_type(x, jnp.int16).astype(jnp.int32) << 16
    return lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32)


def check_format(n: int, es: int) -> None:
    if not (isinstance(n, int) and isinstance(es, int) and 2 <= n <= 16 and 0 <= es <= 3):
        raise InputError(
            f"posit({n}, {es}) was given; expected 2 to 16 bits, of which 0 to 3 of exponent."
        )
