"""Few-bit numbers in bytes: worked by hand, and back again for every width."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnlab.errors import InputError
from nnlab.files.packing import (
    SIGNS,
    Code,
    narrowest_code,
    pack,
    packed_bytes,
    unpack,
)


def test_bytes_by_hand():
    nibbles = Code(bits=4, lowest=0, step=1)
    assert pack(np.array([1, 2, 15], np.uint8), nibbles).tolist() == [0x21, 0x0F]
    pairs = Code(bits=2, lowest=-2, step=1)  # -2, -1, 0, 1 are 0, 1, 2, 3
    assert pack(np.array([-2, -1, 0, 1], np.int8), pairs).tolist() == [0b11_10_01_00]
    assert pack(np.array([1, -1, -1, 1, 1, 1, 1, 1, -1], np.float32), SIGNS).tolist() == [
        0b11111001,
        0,
    ]


@given(
    bits=st.integers(1, 32),
    shape=st.lists(st.integers(0, 5), max_size=3),
    step=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_what_is_packed_comes_back(bits, shape, step, seed):
    lowest = -(2 ** (bits - 1))
    codes = np.random.default_rng(seed).integers(0, 2**bits, shape)
    values = np.asarray(lowest + step * codes, np.int64)
    code = Code(bits, lowest, step)
    packed = pack(values, code)
    assert packed.dtype == np.uint8 and packed.shape == (-(-values.size * bits // 8),)
    assert packed.size == packed_bytes(values.size, code)
    back = unpack(packed, code, shape, np.int64)
    assert back.dtype == np.int64 and np.array_equal(back, values)


def test_the_two_lines_of_the_docstring():
    n, bits = 7, 5
    codes = np.arange(n, dtype=np.uint8) * 4
    packed = pack(codes, Code(bits, 0, 1))
    unpacked = np.unpackbits(packed, count=n * bits, bitorder="little").reshape(n, bits)
    assert np.array_equal(np.packbits(unpacked, axis=1, bitorder="little")[:, 0], codes)


def test_narrowest_codes():
    assert narrowest_code(np.array([-1, 1, 1], np.int8)) == SIGNS
    assert narrowest_code(np.array([0, 2, 14], np.uint8)) == Code(bits=3, lowest=0, step=2)
    assert narrowest_code(np.array([0, 255], np.uint8)) == Code(bits=1, lowest=0, step=255)
    assert narrowest_code(np.array([3, 0, 255], np.uint8)) == Code(bits=7, lowest=0, step=3)
    assert narrowest_code(np.array([5, 5], np.int32)) == Code(bits=1, lowest=5, step=1)
    assert narrowest_code(np.array([], np.int32)) == Code(bits=1, lowest=0, step=1)
    everything = np.array([-(2**31), -1, 2**31 - 1], np.int32)
    assert narrowest_code(everything) == Code(bits=32, lowest=-(2**31), step=1)
    assert np.array_equal(
        unpack(pack(everything, narrowest_code(everything)), narrowest_code(everything), [3], "i4"),
        everything,
    )


def test_what_does_not_fit_is_refused():
    for values in ([0, 16], [-1, 0], [0.5]):
        with pytest.raises(InputError, match="do not fit Code"):
            pack(np.array(values), Code(bits=4, lowest=0, step=1))
    with pytest.raises(InputError, match="do not fit"):
        pack(np.array([np.nan], np.float64), SIGNS)
    with pytest.raises(InputError, match="3 numbers of 4 bits take 2 bytes, not"):
        unpack(np.zeros(1, np.uint8), Code(4, 0, 1), [3], np.uint8)
    with pytest.raises(InputError, match="for integers, not float32"):
        narrowest_code(np.array([1], np.float32))
    with pytest.raises(InputError, match="span 33 bits"):
        narrowest_code(np.array([0, 1, 2**32], np.int64))
