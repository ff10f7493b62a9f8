"""Ternary weights in other programs' layouts: worked by hand, and back again."""

import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.files.ternary import from_hugging_face, from_i2_s, to_hugging_face, to_i2_s

CODES = np.random.default_rng(0).integers(-1, 2, (256, 12)).astype(np.int8)


def test_first_byte_of_i2_s():
    codes = np.zeros((128, 1), np.int8)
    codes[[0, 32, 64, 96], 0] = 1, -1, 1, 0
    data = to_i2_s(codes, 0.5)
    assert data[0] == 0b10001001 and len(data) == 32 + 32
    assert np.frombuffer(data, "<f4", 1, 32) == 0.5


def test_hugging_face_by_its_definition():
    packed = to_hugging_face(CODES)
    assert packed.shape == (3, 256) and packed.dtype == np.uint8
    for output in range(12):
        codes = packed[output % 3] >> (2 * (4 * output // 12)) & 3
        np.testing.assert_array_equal(codes, CODES[:, output] + 1)


def test_both_come_back():
    np.testing.assert_array_equal(from_hugging_face(to_hugging_face(CODES)), CODES)
    codes, scale = from_i2_s(to_i2_s(CODES, 0.25), 256, 12)
    np.testing.assert_array_equal(codes, CODES)
    assert scale == 0.25 and codes.dtype == np.int8


def test_errors():
    for call, message in (
        (lambda: to_hugging_face(CODES[:, :6]), "4 outputs in a byte, so not 6"),
        (lambda: to_hugging_face(CODES * np.int8(3)), "not int8 .* of -3 to 3"),
        (lambda: from_hugging_face(CODES), "uint8 .* not int8"),
        (lambda: from_hugging_face(np.full((1, 4), 255, np.uint8)), "bits 11"),
        (lambda: to_i2_s(CODES[:100], 1.0), "blocks of 128, not 100"),
        (lambda: from_i2_s(bytes(100), 256, 12), "takes 800 bytes .* not 100"),
    ):
        with pytest.raises(InputError, match=message):
            call()
