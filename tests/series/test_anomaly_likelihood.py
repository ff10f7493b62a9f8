"""The streaming likelihood against all errors kept, in float64."""

import functools
import math

import jax
import jax.numpy as jnp
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


@pytest.fixture(scope="module")
def errors():
    """Four series: two of common errors, of large ones of small spread, and of equal ones."""
    equal = np.full(137, 0.7, np.float32)
    return np.stack([errors_of(0), errors_of(1), 1000 + errors_of(1), equal])


@pytest.fixture(scope="module")
def found(errors):
    return anomaly_likelihood.of_series(errors, **OPTIONS, warm_up=WARM)


def test_every_row_is_that_of_the_errors_kept(errors, found):
    for row in (0, 1):
        likelihood, score = brute_force(errors[row])
        # z is a difference of float32 means of about 1 over a deviation of about 1: 1e-6 in z, and
        # the slope of S in z is at most 0.3 where it is below 1.
        np.testing.assert_allclose(found.likelihood[row], likelihood, atol=3e-6)
        np.testing.assert_allclose(found.score[row], score, atol=3e-6)
        assert score[91:94].max() > 3 * np.delete(score, range(90, 97)).max() / 2


def test_large_errors_of_small_spread_keep_their_digits(errors, found):
    likelihood, _ = brute_force(errors[2])
    # float32 has a grain of 6e-5 at 1000; a sum of squares would lose the deviation altogether
    np.testing.assert_allclose(found.likelihood[2], likelihood, atol=1e-3)


def test_row_by_row_is_the_same(errors, found):
    update = jax.jit(functools.partial(anomaly_likelihood.update, block=BLOCK, warm_up=WARM))
    state, scores = anomaly_likelihood.init(**OPTIONS), []
    for error in errors[0]:
        state, got = update(state, error)
        scores.append(float(got.score))
    np.testing.assert_allclose(scores, found.score[0], atol=1e-6)  # the order of a sum


def test_it_is_one_half_in_the_warm_up_and_for_errors_that_never_change(found):
    np.testing.assert_allclose(found.likelihood[:, :WARM], 0.5)
    assert np.all(np.abs(found.likelihood[3] - 0.5) < 0.1)


def test_the_log_scale_at_known_places():
    z = np.array([4.264891, 6.361341])  # Q = 1e-5, 1e-10
    np.testing.assert_allclose(
        anomaly_likelihood.log_score(jnp.asarray(norm.logsf(z))), [0.5, 1], atol=1e-6
    )


@pytest.mark.parametrize("lengths", [(0, 40, 10), (3, 40, 11), (3, 0, 10), (40, 40, 10)])
def test_lengths_that_do_not_fit_get_one_sentence(lengths):
    with pytest.raises(InputError, match="multiple of block"):
        anomaly_likelihood.init(*lengths)
