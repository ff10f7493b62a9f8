r"""Predict characters from the few before them, by counting: what a network is compared with.

An n-gram model of order n knows the n - 1 symbols before. With c(h) the count of a context h, c(hs)
that of s after it, t(h) the number of different symbols seen after it and h' the context without
its first symbol,

.. math:: P(s|h) = \frac{c(hs) + t(h) P(s|h')}{c(h) + t(h)},                         (1)

which is P(s|h') if h was never seen, and begins with P = 1/V for V symbols without any context. It
is Witten and Bell's rule.

References:
    Witten & Bell, The zero-frequency problem, IEEE Trans. Information Theory, 1991;
    Chen & Goodman, An empirical study of smoothing techniques for language modeling, Computer
    Speech & Language, 1999, section 2.5.
"""

from typing import NamedTuple

import numpy as np

from nnlab.errors import InputError


class NGram(NamedTuple):
    """The counts of an n-gram model.

    Attributes:
        size: V.
        contexts: for each length of context from 0 to n - 1 the contexts seen, int64 [contexts],
            ascending; each is a number to the base V.
        counts: for each length int32 [contexts, V], how often each symbol came next.
    """

    size: int
    contexts: tuple[np.ndarray, ...]
    counts: tuple[np.ndarray, ...]


def count_ngrams(symbols: np.ndarray, size: int, order: int) -> NGram:
    """Count the n-grams of a text.

    Args:
        symbols: integers [time] from 0 to `size` - 1.
        size: V.
        order: n, 1 or more.

    Raises:
        InputError: there is no symbol, or `order` is below 1, or so large that a context is no
            64-bit number.
    """
    if not len(symbols):
        raise InputError("an n-gram model needs at least one symbol to count, not none.")
    if order < 1 or size**order >= 2**63:
        raise InputError(f"the order must be 1 or more with {size}^order below 2^63, not {order}.")
    contexts, counts = [], []
    for length in range(order):
        seen, rows = np.unique(_keys(symbols[:-1], length, size), return_inverse=True)
        table = np.zeros((len(seen), size), np.int32)
        np.add.at(table, (rows, symbols[length:][: len(rows)]), 1)
        contexts.append(seen)
        counts.append(table)
    return NGram(size, tuple(contexts), tuple(counts))


def probabilities(model: NGram, symbols: np.ndarray) -> np.ndarray:
    """Compute P of eq. 1 for the symbol after each place of a text, float64 [time, V].

    Near the beginning the contexts are as long as possible.
    """
    p = np.full((len(symbols), model.size), 1 / model.size)
    for length, (seen, table) in enumerate(zip(model.contexts, model.counts, strict=True)):
        keys = _keys(symbols, length, model.size)
        if not len(seen) or not len(keys):
            break
        # The first place with such a context comes after `length` symbols.
        keys = keys[1:] if length == 0 else keys
        rows = np.minimum(np.searchsorted(seen, keys), len(seen) - 1)
        after = np.where((seen[rows] == keys)[:, None], table[rows], 0)
        kinds = (after > 0).sum(axis=1, keepdims=True)
        total = after.sum(axis=1, keepdims=True) + kinds
        shorter = p[len(p) - len(keys) :]
        p[len(p) - len(keys) :] = np.where(
            total > 0, (after + kinds * shorter) / np.maximum(total, 1), shorter
        )
    return p


def write(model: NGram, rng: np.random.Generator, start: int, end: int, longest: int) -> list[int]:
    """Draw symbols one after the other, from `start` to `end` (both left out) or to `longest`."""
    text = [start]
    while len(text) <= longest:
        known = np.array(text[-len(model.counts) :])
        text.append(int(rng.choice(model.size, p=probabilities(model, known)[-1])))
        if text[-1] == end:
            return text[1:-1]
    return text[1:]


def _keys(symbols: np.ndarray, length: int, size: int) -> np.ndarray:
    """Turn all contexts of a length in a text into numbers, int64 [time - length + 1]."""
    keys = np.zeros(max(0, len(symbols) - length + 1), np.int64)
    for place in range(length):
        keys = keys * size + symbols[place : place + len(keys)]
    return keys
