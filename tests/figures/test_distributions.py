"""Fits against scipy.stats on samples of known distributions."""

import numpy as np
import pytest
from scipy import stats

from nnlab.errors import InputError
from nnlab.figures import fit_weights

FAMILIES = {"gaussian": stats.norm, "laplace": stats.laplace}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_recognised_and_fitted_as_scipy_does(family):
    rng = np.random.default_rng(0)
    weights = FAMILIES[family](loc=0.3, scale=2.0).rvs((20, 1000), random_state=rng)
    fits = fit_weights(weights.astype(np.float32))
    assert fits.better.family == family
    for fit in fits:
        location, scale = FAMILIES[fit.family].fit(weights.ravel())
        assert (fit.location, fit.scale) == pytest.approx((location, scale), abs=1e-3)
        expected = FAMILIES[fit.family](fit.location, fit.scale)
        assert fit.log_likelihood == pytest.approx(expected.logpdf(weights).mean(), abs=1e-6)
        grid = np.linspace(-5, 5, 11)
        np.testing.assert_allclose(fit.density(grid), expected.pdf(grid), rtol=1e-12)


def test_golden_value():
    # median 1, deviations 1 0 0 4: s = 5/4, log-likelihood -log(2.5) - 1
    fit = fit_weights([0.0, 1.0, 1.0, 5.0]).laplace
    assert fit[1:] == pytest.approx((1.0, 1.25, -np.log(2.5) - 1))


@pytest.mark.parametrize("weights", [[], [1.0], [2.0, 2.0], [1.0, np.nan], [np.inf, 0.0]])
def test_weights_without_a_distribution_are_refused(weights):
    with pytest.raises(InputError, match=f"to {len(weights)} weights"):
        fit_weights(weights)
