"""Operations of tokens by brute force in int64, from the equations of `nnlab.deployment.tokens`.

Square roots are those of Python's integers, sums are whole, and exponentials are halved in a loop.
"""

import math

import numpy as np


def layer_norm(x: np.ndarray, epsilon: np.ndarray) -> np.ndarray:
    """Compute (1) to (3) of integers [..., features]; epsilon [17, 2]."""
    rows = x.reshape(-1, x.shape[-1])
    return np.stack([_of_row(row, epsilon) for row in rows]).reshape(x.shape)


def _of_row(row: np.ndarray, epsilon: np.ndarray) -> np.ndarray:
    deviation = len(row) * row - row.sum()
    cut = max(int(abs(deviation).max()).bit_length() - 15, 0)
    deviation = (deviation + 2**cut // 2) // 2**cut  # (1)
    square = int((deviation**2).sum()) + int(epsilon[cut, 0]) * 2**16 + int(epsilon[cut, 1])
    power = 14
    while power > -16 and square * 4**14 // 4 ** (14 - power) >= 2**30:
        power -= 1
    root = math.isqrt(square * 4**14 // 4 ** (14 - power))  # (2)
    inverse = 2**29 // max(root, 1)
    y = (deviation * inverse + 2 ** (14 - power) // 2) // 2 ** (14 - power)  # (3)
    return np.clip(y, -(2**15) + 1, 2**15 - 1)


def scores(heads: int, query: np.ndarray, key: np.ndarray) -> np.ndarray:
    query, key = (np.moveaxis(x.reshape(*x.shape[:2], heads, -1), 2, 1) for x in (query, key))
    return query @ np.swapaxes(key, 2, 3)


def softmax(x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """Compute (4), weights from 0 to 255."""
    counts = np.ones(x.shape, bool)
    for text, length in enumerate([] if lengths is None else lengths):
        counts[text, ..., length:] = False
    x = np.where(counts, x, -(2**22))
    below = x.max(axis=-1, keepdims=True) - x
    halvings, rest = np.divmod(below, 2839)
    polynomial = ((5542 - rest) ** 2 + 16_098_601) // 2**10
    power = np.minimum(halvings, 8)
    weight = (polynomial * 23396 + 2 ** (21 + power)) // 2 ** (22 + power)
    return np.where(counts & (halvings <= 8), weight, 0)


def mix(heads: int, parts: int, weights: np.ndarray, value: np.ndarray) -> np.ndarray:
    values = np.moveaxis(value.reshape(*value.shape[:2], heads, -1), 2, 1)
    count = np.maximum(weights.sum(axis=-1, keepdims=True), 1)
    mean = (parts * (weights @ values) + count // 2) // count
    return np.moveaxis(mean, 1, 2).reshape(value.shape)
