"""Alarms by hand, and thresholds against a search through all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.errors import InputError
from nnlab.series.alarms import alarms, threshold_for

NAN = float("nan")


@pytest.mark.parametrize(
    ("scores", "apart", "count"),
    [
        ([], 1, 0),
        ([0, 0], 1, 0),
        ([1, 1, 0, 1], 1, 2),
        ([1, 0, 1, 0, 1], 3, 1),
        ([1, 0, 0, 1], 3, 2),
        ([NAN, 1, NAN], 1, 1),
    ],
)
def test_by_hand(scores, apart, count):
    assert alarms(np.array(scores), 1, apart) == count


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, NAN]), min_size=1, max_size=30),
    st.integers(0, 5),
    st.integers(1, 4),
)
def test_threshold_is_the_least_that_may_be(scores, most, apart):
    scores = np.array(scores)
    levels = sorted({score for score in scores.tolist() if score == score}, reverse=True)
    if not levels:
        with pytest.raises(InputError, match="has a score"):
            threshold_for(scores, most, apart)
        return
    chosen = threshold_for(scores, most, apart)
    counts = [alarms(scores, level, apart) for level in levels]
    allowed = 0
    while allowed < len(levels) and counts[allowed] <= most:
        allowed += 1
    assert chosen == levels[max(allowed - 1, 0)]
