"""Precision, recall and F1 against scikit-learn, and grouping against sets of lines."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from nnlab.errors import InputError
from nnlab.series.detection import Found, found, grouping_accuracy

pairs = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30)


def columns(pairs):
    return tuple(np.array([pair[i] for pair in pairs], bool) for i in (0, 1))


@settings(max_examples=50, deadline=None)
@given(pairs)
def test_as_scikit_learn_has_it(pairs):
    """Empty cases too: 0 where there is nothing to divide by."""
    flagged, there = columns(pairs)
    counts = found(flagged, there)
    assert sum(counts) == len(pairs)
    if pairs:
        theirs = metrics.confusion_matrix(there, flagged, labels=[False, True]).ravel().tolist()
        tn, fp, fn, tp = theirs
        assert counts == Found(tp, fp, fn, tn)
        ours = {"precision": counts.precision, "recall": counts.recall, "f1": counts.f1}
        for name, value in ours.items():
            score = getattr(metrics, f"{name}_score")(there, flagged, zero_division=0)
            assert math.isclose(value, score)  # F1 is multiplied and divided in another order
    else:
        assert counts == (0, 0, 0, 0) and counts.precision == counts.recall == counts.f1 == 0


def test_by_hand():
    counts = Found(true_positives=6, false_positives=2, false_negatives=4, true_negatives=8)
    assert (counts.precision, counts.recall, counts.f1) == (0.75, 0.6, 12 / 18)
    assert counts.false_positive_rate == 0.2
    # Of 100 among 10,100: 60 are found, and 2,000 others.
    assert counts.among(100, 10_000) == Found(60, 2000, 40, 8000)
    assert counts.among(100, 10_000).precision == 60 / 2060
    assert counts.among(10, 10) == counts
    assert Found(0, 0, 0, 0).false_positive_rate == 0


@pytest.mark.parametrize(
    ("flagged", "there"),
    [([True], [True, False]), ([1, 0], [True, False]), ([True, False], [0.0, 1.0])],
)
def test_not_flags(flagged, there):
    with pytest.raises(InputError, match="expected bool of one shape"):
        found(np.array(flagged), np.array(there))


def test_grouping_by_hand():
    # The lines of "b" are in two groups, so that all three are wrong; names do not matter.
    assert grouping_accuracy([0, 0, 1, 2, 2], ["a", "a", "b", "b", "b"]) == 0.4
    assert grouping_accuracy("xyx", [5, 6, 5]) == 1.0
    assert grouping_accuracy([0, 0], [1, 2]) == 0.0
    assert grouping_accuracy([], []) == 0.0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_grouping_by_pairs_of_lines(lines):
    """A line is right if it shares its group with exactly those that share its label."""
    wrong = {
        i
        for (i, a), (j, b) in itertools.permutations(enumerate(lines), 2)
        if (a[0] == b[0]) != (a[1] == b[1])
    }
    groups, labels = zip(*lines, strict=True)
    assert math.isclose(grouping_accuracy(groups, labels), 1 - len(wrong) / len(lines))
