"""n-gram probabilities by hand, and against the formula in plain Python."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ngram import count_ngrams, probabilities, write

from nnlab.errors import InputError


def test_a_bigram_by_hand():
    # abaab: behind nothing a 3 and b 2, behind a once a and twice b, behind b once a.
    model = count_ngrams(np.array([0, 1, 0, 0, 1]), 3, 2)
    p = probabilities(model, np.array([0, 1, 2]))
    # P(.) of order 1: c + t/3 over 5 + 2.
    one = np.array([3 + 2 / 3, 2 + 2 / 3, 2 / 3]) / 7
    np.testing.assert_allclose(p[0], (np.array([1, 2, 0]) + 2 * one) / 5, rtol=1e-12)
    np.testing.assert_allclose(p[1], (np.array([1, 0, 0]) + 1 * one) / 2, rtol=1e-12)
    np.testing.assert_allclose(p[2], one, rtol=1e-12)  # c was never seen


def slow(text, context, size):
    """Eq. 1 of one context, all symbols."""
    p = np.full(size, 1 / size)
    for length in range(len(context) + 1):
        h = tuple(context[len(context) - length :])
        behind = Counter(
            text[i] for i in range(length, len(text)) if tuple(text[i - length : i]) == h
        )
        c, t = sum(behind.values()), len(behind)
        if c:
            p = np.array([(behind[s] + t * p[s]) / (c + t) for s in range(size)])
    return p


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=30),
    st.lists(st.integers(0, 3), min_size=1, max_size=8),
    st.integers(1, 5),
)
def test_against_the_formula(text, asked, order):
    found = probabilities(count_ngrams(np.array(text), 4, order), np.array(asked))
    for place in range(len(asked)):
        context = asked[: place + 1][-(order - 1) :] if order > 1 else []
        np.testing.assert_allclose(found[place], slow(text, context, 4), rtol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)


def test_it_writes_what_it_has_read():
    text = np.array([9, 1, 2, 3, 9] + [1, 2, 3, 9] * 2000)
    model = count_ngrams(text, 10, 3)
    files = [write(model, np.random.default_rng(seed), 9, 9, 50) for seed in range(5)]
    # Another symbol than the one that always follows has a probability of 1 in 2,000 or less.
    assert files == [[1, 2, 3]] * 5
    assert write(model, np.random.default_rng(0), 9, 7, 6) == [1, 2, 3, 9, 1, 2]


def test_what_cannot_be_counted():
    with pytest.raises(InputError, match="at least one symbol to count, not none"):
        count_ngrams(np.zeros(0, int), 4, 2)
    for order in (0, 32):
        with pytest.raises(InputError, match=f"4\\^order below 2\\^63, not {order}"):
            count_ngrams(np.array([1]), 4, order)
