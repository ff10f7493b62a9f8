"""Few-bit numbers side by side in bytes.

A `Code` says which numbers an array may hold,

    value = lowest + step code,    code = 0, 1, ..., 2^bits - 1,                             (1)

and the codes lie in the array's order (the last axis runs fastest) one after another from the
lowest bit of the first byte on: eight signs in a byte, four 2-bit numbers, two of 4 bits with the
first in the low half. The last byte is filled with zeros, so n numbers take ceil(n bits / 8) bytes.
With NumPy alone, codes of up to 8 bits come back by

    bits = np.unpackbits(packed, count=n * bits, bitorder="little").reshape(n, bits)
    codes = np.packbits(bits, axis=1, bitorder="little")[:, 0]
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from nnlab.errors import InputError


class Code(NamedTuple):
    """The numbers (1); `bits` from 1 to 32."""

    bits: int
    lowest: int
    step: int


SIGNS = Code(bits=1, lowest=-1, step=2)


def narrowest_code(values: np.ndarray) -> Code:
    """The code of fewest bits, 1 at least, that holds integers `values` (any shape) exactly.

    Raises:
        InputError: the values are no integers, or span more than 32 bits.
    """
    if values.dtype.kind not in "iu":
        raise InputError(f"a code is for integers, not {values.dtype}.")
    if values.size == 0:
        return Code(bits=1, lowest=0, step=1)
    lowest = int(values.min())
    offsets = values.astype(object) - lowest if values.itemsize > 4 else values.astype(int) - lowest
    step = max(math.gcd(*map(int, np.unique(offsets))), 1)
    bits = max((int(offsets.max()) // step).bit_length(), 1)
    if bits > 32:
        raise InputError(f"values that span {bits} bits cannot be packed; expected at most 32.")
    return Code(bits, lowest, step)


def packed_bytes(size: int, code: Code) -> int:
    """Bytes of `size` packed numbers."""
    return math.ceil(size * code.bits / 8)


def pack(values: np.ndarray, code: Code) -> np.ndarray:
    """`values` (any shape) by `code`, as uint8 [ceil(n bits / 8)].

    Raises:
        InputError: a value is none of (1).
    """
    codes, remainders = np.divmod(values.reshape(-1).astype(np.float64) - code.lowest, code.step)
    if not ((remainders == 0) & (codes >= 0) & (codes < 2**code.bits)).all():
        raise InputError(f"values {values.min()} to {values.max()} do not fit {code}.")
    octets = codes.astype("<u4")[:, None].view(np.uint8)
    bits = np.unpackbits(octets, axis=1, count=code.bits, bitorder="little")
    return np.packbits(bits, bitorder="little")


def unpack(packed: np.ndarray, code: Code, shape: Sequence[int], dtype: DTypeLike) -> np.ndarray:
    """What `pack` made of an array of this shape and dtype.

    Raises:
        InputError: `packed` is not of as many bytes as the shape takes.
    """
    size = math.prod(shape)
    if packed.shape != (packed_bytes(size, code),):
        raise InputError(
            f"{size} numbers of {code.bits} bits take {packed_bytes(size, code)} bytes, not"
            f" {packed.shape}."
        )
    bits = np.unpackbits(packed, count=size * code.bits, bitorder="little")
    octets = np.zeros((size, 4), np.uint8)
    octets[:, : math.ceil(code.bits / 8)] = np.packbits(
        bits.reshape(size, code.bits), axis=1, bitorder="little"
    )
    codes = octets.view("<u4")[:, 0].astype(np.int64)
    return (code.lowest + code.step * codes).astype(dtype).reshape(shape)
