"""The streaming likelihood against all errors kept, in float64."""

import functools
import math

import jax
import numpy as np
import pytest
from scipy.stats import norm

from nnlab.errors import InputError
from nnlab.series import anomaly_likelihood

SHORT, LONG, BLOCK, WARM = 3, 40, 10, 5
OPTIONS = {"short": SHORT, "long": LONG, "block": BLOCK}


def errors_of(seed, rows=137):
    errors = np.abs(np.random.default_rng(seed).normal(size=rows)).astype(np.float32)
    errors[90:94] += 3
    return errors


def brute_force(errors):
    """z, L and S of each row from the rows themselves."""
    found = []
    for last in range(len(errors)):
        first = max(0, last // BLOCK - (LONG // BLOCK - 1)) * BLOCK
        seen = errors[first : last + 1].astype(np.float64)
        recent = errors[max(0, last - SHORT + 1) : last + 1].astype(np.float64)
        z = (recent.mean() - seen.mean()) / max(seen.std(), 1e-6) if last >= WARM else 0.0
        found.append((norm.cdf(z), min(1.0, norm.logsf(z) / math.log(1e-10))))
    return np.array(found).T


def test_every_row_is_that_of_the_errors_kept():
    errors = errors_of(0)
    got = anomaly_likelihood.of_series(errors, **OPTIONS, warm_up=WARM)
    likelihood, score = brute_force(errors)
    # z is a difference of float32 means of about 1 over a deviation of about 1: 1e-6 in z, and the
    # slope of S in z is at most 0.3 where it is below 1.
    np.testing.assert_allclose(got.likelihood, likelihood, atol=3e-6)
    np.testing.assert_allclose(got.score, score, atol=3e-6)
    assert score[91:94].max() > 3 * np.delete(score, range(90, 97)).max() / 2


def test_large_errors_of_small_spread_keep_their_digits():
    errors = 1000 + errors_of(1)
    got = anomaly_likelihood.of_series(errors, **OPTIONS, warm_up=WARM)
    likelihood, _ = brute_force(errors)
    # float32 has a grain of 6e-5 at 1000; a sum of squares would lose the deviation altogether
    np.testing.assert_allclose(got.likelihood, likelihood, atol=1e-3)


def test_row_by_row_in_a_scan_and_mapped_are_the_same():
    errors = np.stack([errors_of(2), errors_of(3)])
    mapped = anomaly_likelihood.of_series(errors, **OPTIONS, warm_up=WARM)
    update = jax.jit(functools.partial(anomaly_likelihood.update, block=BLOCK, warm_up=WARM))
    for row, expected in zip(errors, np.asarray(mapped.score), strict=True):
        state, found = anomaly_likelihood.init(**OPTIONS), []
        for error in row:
            state, got = update(state, error)
            found.append(float(got.score))
        np.testing.assert_allclose(found, expected, atol=1e-6)  # the order of a sum


def test_it_is_one_half_in_the_warm_up_and_for_errors_that_never_change():
    got = anomaly_likelihood.of_series(np.full(60, 0.7, np.float32), **OPTIONS, warm_up=WARM)
    np.testing.assert_allclose(got.likelihood[:WARM], 0.5)
    assert np.all(np.abs(got.likelihood - 0.5) < 0.1)


def test_the_log_scale_at_known_places():
    z = np.array([4.264891, 6.361341])  # Q = 1e-5, 1e-10
    np.testing.assert_allclose(
        anomaly_likelihood.log_score(jax.scipy.special.log_ndtr(-z)), [0.5, 1.0], atol=1e-6
    )


@pytest.mark.parametrize("lengths", [(0, 40, 10), (3, 40, 11), (3, 0, 10), (40, 40, 10)])
def test_lengths_that_do_not_fit_get_one_sentence(lengths):
    with pytest.raises(InputError, match="multiple of block"):
        anomaly_likelihood.init(*lengths)
