"""The windowed Gaussian against hand-worked rows and a window that moves by strides."""

import numpy as np
import pytest
import windowed_gaussian
from scipy.stats import norm


def scores_of(values, **options):
    """Scores of at most 60 values; padded, so that one program serves all tests."""
    return windowed_gaussian.of_series(np.resize(values, 60), **options)[: len(values)]


def test_a_hand_worked_row():
    scores = scores_of([1.0, 3.0, 1.0, 3.0, 6.0])  # mean 2, deviation 1 before the last, so z = 4
    assert scores[-1] == pytest.approx(-norm.logsf(4), rel=1e-5)
    assert scores[0] == pytest.approx(np.log(2))


def test_the_window_moves_by_strides():
    values = np.random.default_rng(0).normal(size=60)
    scores = scores_of(values, window=20, stride=5)
    for row, (first, end) in {18: (0, 18), 24: (0, 20), 25: (5, 25), 47: (25, 45)}.items():
        seen = values[first:end]
        z = abs(values[row] - seen.mean()) / seen.std()
        assert scores[row] == pytest.approx(-norm.logsf(z), rel=1e-4)


def test_constant_values_are_not_anomalous_and_a_change_is():
    scores = scores_of([2.0, 2.0, 2.0, 2.5])
    assert np.isfinite(scores).all() and scores[2] == pytest.approx(np.log(2)) and scores[3] > 1e6
