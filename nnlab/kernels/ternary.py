"""Bodies of the product of 8-bit inputs and packed ternary weights: exact to the integer.

Weights lie in lines of 64 bytes, in the order in which a processor's instructions for sums of four
products of bytes take them. A block of lines holds 16 outputs; with d digits a byte,

    digit n of byte 4 o + j of line i = w + 1 for output o and input 4 (d i + n) + j.        (1)

Four digits c_n are two bits each, c_0 + 4 c_1 + 16 c_2 + 64 c_3. Five are one of 243 bytes,

    28 (3 c_0 + c_4) + ((9 c_1 + 3 c_2 + c_3) xor c_0),                                  (2)

of which the upper six bits alone know c_0 and c_4, since 28 divides by 4 and the "xor" keeps to the
lower two: so two tables of 64 bytes, as instructions have them, tell all digits. Where inputs or
outputs end before a line or a block, weights are 0.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.kernels import native_integer as native
from nnlab.kernels.selection import by_platform

STEP, OUTPUTS = 4, 16  # bytes of a line for each output, and outputs of a block


def packed_shape(inputs: int, outputs: int, digits: int) -> tuple[int, int, int]:
    """The shape of what `pack` returns: blocks, lines and bytes of a line."""
    return -(-outputs // OUTPUTS), -(-inputs // (STEP * digits)), STEP * OUTPUTS


@functools.partial(jax.jit, static_argnames="digits")
def pack(codes: jax.Array, digits: int) -> jax.Array:
    """Pack weights -1, 0 and 1 [in, out], int8, by (1).

    Returns:
        uint8 [ceil(out / 16), ceil(in / (4 digits)), 64].
    """
    inputs, outputs = codes.shape
    blocks, lines, _ = packed_shape(inputs, outputs, digits)
    padding = [(0, lines * STEP * digits - inputs), (0, blocks * OUTPUTS - outputs)]
    weights = jnp.pad(codes, padding).reshape(lines, digits, STEP, blocks, OUTPUTS)
    each = (jnp.transpose(weights, (3, 0, 4, 2, 1)) + 1).astype(jnp.uint8)
    c = [each[..., n] for n in range(digits)]
    if digits == 4:
        number = c[0] | c[1] << 2 | c[2] << 4 | c[3] << 6
    else:
        number = 28 * (3 * c[0] + c[4]) + ((9 * c[1] + 3 * c[2] + c[3]) ^ c[0])  # (2)
    return number.astype(jnp.uint8).reshape(blocks, lines, STEP * OUTPUTS)


@functools.partial(jax.jit, static_argnames=("inputs", "features", "digits"))
def unpack(packed: jax.Array, inputs: int, features: int, digits: int) -> jax.Array:
    """Return the weights [inputs, features], int8, of which `pack` made `packed`."""
    blocks, lines, _ = packed.shape
    if digits == 4:
        each = [packed >> (2 * n) & 3 for n in range(4)]
    else:
        first, rest = _digit_of(packed, 84)
        last, rest = _digit_of(rest, 28)
        second, rest = _digit_of(rest ^ first, 9)
        each = [first, second, *_digit_of(rest, 3), last]
    codes = jnp.stack(each).astype(jnp.int8).reshape(digits, blocks, lines, OUTPUTS, STEP) - 1
    whole = lines * digits * STEP, blocks * OUTPUTS
    return jnp.transpose(codes, (2, 0, 4, 1, 3)).reshape(whole)[:inputs, :features]


def _digit_of(number: jax.Array, unit: int) -> tuple[jax.Array, jax.Array]:
    """A digit of numbers less than 3 times `unit`, and the rest."""
    digit = (number >= unit).astype(jnp.uint8) + (number >= 2 * unit).astype(jnp.uint8)
    return digit, number - jnp.uint8(unit) * digit


@functools.partial(jax.jit, static_argnames=("features", "digits"))  # for `nnlab.costs.count`
def ternary_dense_packed(
    x: jax.Array, packed: jax.Array, *, features: int, digits: int
) -> jax.Array:
    """Sums of `x` times packed weights, each less than 2^31 in magnitude.

    Args:
        x: rows [rows, in], int8.
        packed: [ceil(features / 16), ceil(in / (4 digits)), 64], uint8.
        features: outputs.
        digits: of a byte of `packed`, 4 or 5.

    Returns:
        [rows, features], int32.
    """

    def xla(x, packed):
        x = lax.bitcast_convert_type(x, jnp.int8)
        codes = unpack(packed, x.shape[-1], features, digits)
        return lax.dot(x, codes, preferred_element_type=jnp.int32)

    return by_platform(
        xla,
        lax.bitcast_convert_type(x, jnp.uint8),
        packed,
        native=functools.partial(native.ternary_dense_packed, features=features, digits=digits),
        dtypes=[jnp.dtype(jnp.uint8)],
    )
