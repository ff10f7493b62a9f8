"""The excess over what was seen, against the values kept."""

import functools

import jax
import numpy as np
import pytest
import seen_range

from nnlab.errors import InputError


def brute_force(values, length, memory):
    means = [values[max(0, i - length + 1) : i + 1].mean() for i in range(len(values))]
    found = [0.0]
    for i in range(1, len(values)):
        first = max(0, (i // memory - 1) * memory) if memory else 0
        low, high = min(means[first:i]), max(means[first:i])
        outside = max(means[i] - high, low - means[i])
        found.append(outside / (high - low) if high > low else 0.0)
    return np.array(found)


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("memory", [0, 20])
def test_every_row_is_that_of_the_values_kept(length, memory):
    values = np.random.default_rng(length).normal(size=(2, 75)).cumsum(axis=1)
    values[1, :30] = 5.0  # no range to begin with
    got = seen_range.of_series(values, length, memory)
    for row, expected in zip(values, got, strict=True):
        # float32 values of about 5 in a range of at least 1e-2 at the start of a block
        wanted = brute_force(row, length, memory)
        np.testing.assert_allclose(expected, wanted, rtol=1e-4, atol=1e-4)


def test_hand_worked_excess():
    # range 0..10 after three rows: 11 is a tenth above, -5 then 5/11 below, 0 is inside
    got = seen_range.of_series(np.array([0.0, 10.0, 5.0, 11.0, -5.0, 0.0]))
    np.testing.assert_allclose(got, [0, 0, -0.5, 0.1, 5 / 11, -5 / 16], rtol=1e-6)


def test_what_was_extreme_before_the_memory_is_new_again():
    values = np.array([0.0, 100.0, *[0.0, 1.0] * 4, 100.0])
    assert seen_range.of_series(values, 1, 0)[-1] == 0.0
    assert seen_range.of_series(values, 1, 4)[-1] == 99.0


def test_row_by_row_is_the_scan():
    values = np.random.default_rng(0).normal(size=40).astype(np.float32)
    update = jax.jit(functools.partial(seen_range.update, memory=15))
    state, found = seen_range.init(3), []
    for value in values:
        state, excess = update(state, value)
        found.append(float(excess))
    np.testing.assert_allclose(found, seen_range.of_series(values, 3, 15), rtol=1e-5, atol=1e-6)


def test_a_length_below_one_gets_one_sentence():
    with pytest.raises(InputError, match="length must be at least 1, not 0"):
        seen_range.init(0)
