"""Early stopping against the definition by brute force, and against Flax."""

import math

import pytest
from flax.training.early_stopping import EarlyStopping
from hypothesis import given
from hypothesis import strategies as st

from nnlab.errors import InputError
from nnlab.runs import stopped_improving

few = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, -1.0])  # so that there are ties
histories = st.lists(few | st.floats(-10, 10), max_size=15)
with_nan = st.lists(few | st.just(math.nan), max_size=15)
deltas = st.sampled_from([0.0, 0.25, 0.3])


@given(with_nan, st.integers(0, 5))
def test_without_a_delta_the_first_best_value_is_older_than_the_patience(values, patience):
    known = [v for v in values if not math.isnan(v)]
    best = values.index(max(known)) if known else -1
    assert stopped_improving(values, patience) == (len(values) - 1 - best > patience)


@given(with_nan, st.integers(0, 5), deltas)
def test_a_delta_by_brute_force(values, patience, delta):
    """The improvements form a chain: each is the first after the one before to exceed it."""
    last = -1
    while True:
        level = values[last] + delta if last >= 0 else -math.inf
        later = [i for i in range(last + 1, len(values)) if values[i] > level]
        if not later:
            break
        last = later[0]
    assert stopped_improving(values, patience, delta) == (len(values) - 1 - last > patience)


@given(histories, st.integers(0, 5), deltas)
def test_stops_first_where_flax_does(values, patience, delta):
    flax, theirs, ours = EarlyStopping(min_delta=delta, patience=patience), None, None
    for n in range(1, len(values) + 1):
        flax = flax.update(-values[n - 1])
        theirs = n if theirs is None and flax.should_stop else theirs
        if ours is None and stopped_improving(values[:n], patience, delta):
            ours = n
    assert ours == theirs


def test_golden_values():
    values = [0.5, 0.75, 0.75, 0.7]
    assert not stopped_improving(values, 2)  # two values without improvement
    assert stopped_improving(values, 1)
    assert stopped_improving([0.5, 0.75], 0, min_delta=0.25)  # not more than the delta
    assert not stopped_improving([], 0)
    assert not stopped_improving([math.nan, 0.1], 0)
    assert stopped_improving([math.nan] * 3, 2)


@pytest.mark.parametrize("patience", [-1, 1.5, math.nan])
def test_the_patience_is_checked(patience):
    words = f"^patience must be an integer of at least 0, not {patience}\\.$"
    with pytest.raises(InputError, match=words):
        stopped_improving([], patience)


@pytest.mark.parametrize("delta", [-0.1, math.inf, math.nan])
def test_the_delta_is_checked(delta):
    words = f"^min_delta must be a finite number of at least 0, not {delta}\\.$"
    with pytest.raises(InputError, match=words):
        stopped_improving([], 1, delta)
