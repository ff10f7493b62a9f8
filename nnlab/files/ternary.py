"""Ternary weights in the layouts of other programs, which hold two bits of w + 1 for each.

Weights here are [in, out], theirs [out, in]. Scales are stored beside them: in Hugging Face's
tensors as `weight_scale`, by which one of its layers (`BitLinear`) divides and another
(`AutoBitLinear`) multiplies; in I2_S as one float32 after the weights of a tensor.

References:
    huggingface/transformers, integrations/bitnet.py. microsoft/BitNet, src/ggml-bitnet-mad.cpp, for
    I2_S as its x86 builds read it; its ARM builds lay out blocks of 64 weights, so that the files
    of one are garbage to the other (issue 598).
"""

import numpy as np

from nnlab.errors import InputError

_BLOCK = 128  # weights of I2_S in 32 bytes
_SHIFTS = np.array([0, 2, 4, 6], np.uint8)


def to_hugging_face(codes: np.ndarray) -> np.ndarray:
    """Pack codes -1, 0 and 1 [in, out], int8, as uint8 [out / 4, in].

    Output o is in row o mod (out / 4), at the bits from 2 floor(4 o / out) on.

    Raises:
        InputError: the outputs do not divide by 4, or a value is none of these.
    """
    _check(codes)
    if codes.shape[1] % 4:
        raise InputError(f"this layout holds 4 outputs in a byte, so not {codes.shape[1]} in all.")
    quarters = (codes.T + 1).astype(np.uint8).reshape(4, -1, codes.shape[0])
    return (quarters << _SHIFTS[:, None, None]).sum(axis=0, dtype=np.uint8)


def from_hugging_face(packed: np.ndarray) -> np.ndarray:
    """Return codes -1, 0 and 1 [in, out], int8, of uint8 [out / 4, in].

    Raises:
        InputError: another shape or dtype, or the bits 11, which stand for nothing.
    """
    if packed.ndim != 2 or packed.dtype != np.uint8:
        raise InputError(
            f"packed weights are uint8 [out / 4, in], not {packed.dtype} {packed.shape}."
        )
    codes = packed >> _SHIFTS[:, None, None] & 3
    return _codes(codes.reshape(-1, packed.shape[1]))


def to_i2_s(codes: np.ndarray, scale: float) -> bytes:
    """Pack codes -1, 0 and 1 [in, out], int8, and their scale as a tensor of I2_S.

    Of each 128 weights, number j is in byte j mod 32, at the bits from 6 - 2 floor(j / 32) on; the
    weights are those of the first output, then of the next. After them come the scale, float32, and
    28 zeros.

    Raises:
        InputError: the inputs do not divide by 128, or a value is none of these.
    """
    _check(codes)
    if codes.shape[0] % _BLOCK:
        raise InputError(f"I2_S needs inputs in blocks of {_BLOCK}, not {codes.shape[0]}.")
    blocks = (codes.T + 1).astype(np.uint8).reshape(-1, 4, _BLOCK // 4)
    packed = (blocks << _SHIFTS[::-1, None]).sum(axis=1, dtype=np.uint8)
    return packed.tobytes() + np.float32(scale).astype("<f4").tobytes() + bytes(28)


def from_i2_s(data: bytes, inputs: int, features: int) -> tuple[np.ndarray, float]:
    """Return codes -1, 0 and 1 [inputs, features], int8, and their scale.

    Raises:
        InputError: another number of bytes, or the bits 11, which stand for nothing.
    """
    size = inputs * features // 4
    if inputs % _BLOCK or len(data) != size + 32:
        raise InputError(
            f"I2_S takes {size + 32} bytes for {features} outputs of {inputs} inputs in blocks of "
            f"{_BLOCK}, not {len(data)}."
        )
    blocks = np.frombuffer(data, np.uint8, size).reshape(-1, 1, _BLOCK // 4)
    codes = blocks >> _SHIFTS[::-1, None] & 3
    scale = float(np.frombuffer(data, "<f4", 1, size)[0])
    return _codes(codes.reshape(features, inputs)), scale


def _check(codes: np.ndarray) -> None:
    if codes.ndim != 2 or codes.dtype != np.int8 or not np.isin(codes, (-1, 0, 1)).all():
        raise InputError(
            f"ternary weights are -1, 0 and 1 [in, out] in int8, not {codes.dtype} {codes.shape}"
            + (f" of {codes.min()} to {codes.max()}." if codes.size else ".")
        )


def _codes(rows: np.ndarray) -> np.ndarray:
    if (rows == 3).any():
        raise InputError("packed ternary weights hold the bits 11, which stand for no weight.")
    return np.ascontiguousarray(rows.T).astype(np.int8) - np.int8(1)
