r"""Whether weights look Gaussian or Laplacian, by maximum likelihood.

========  ===================================  =========================  =========================
family    log density                          estimates                  log-likelihood a weight
========  ===================================  =========================  =========================
gaussian  -(w-m)^2/(2s^2) - log(s sqrt(2 pi))  m mean, s standard         -log(s sqrt(2 pi)) - 1/2
                                               deviation             (1)                        (2)
laplace   -|w-m|/s - log(2s)                   m median, s mean absolute  -log(2s) - 1         (4)
                                               deviation from it     (3)
========  ===================================  =========================  =========================

A convolution trained with weight decay tends to (1), a zero-mean prior with squared penalty; the
L1 distance of an adder layer is the Laplacian's exponent, and the claim is that its weights follow
(3). The fit that is better is not for that a good one: look at the histogram as well.

References:
    Chen et al., AdderNet, CVPR 2020, https://arxiv.org/abs/1912.13200, section 4.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nnlab.errors import InputError


class Fit(NamedTuple):
    """A fitted distribution; `log_likelihood` is the mean over weights, in nats."""

    family: str
    location: float
    scale: float
    log_likelihood: float

    def density(self, weights: ArrayLike) -> np.ndarray:
        """Probability density at each weight, float64, same shape."""
        z = np.abs(np.asarray(weights, np.float64) - self.location) / self.scale
        if self.family == "gaussian":
            return np.exp(-(z**2) / 2) / (self.scale * np.sqrt(2 * np.pi))
        return np.exp(-z) / (2 * self.scale)


class Fits(NamedTuple):
    """Both fits of the same weights."""

    gaussian: Fit
    laplace: Fit

    @property
    def better(self) -> Fit:
        """The fit under which the weights are more likely."""
        return max(self, key=lambda fit: fit.log_likelihood)


def fit_weights(weights: ArrayLike) -> Fits:
    """Fit a Gaussian and a Laplacian to all elements of an array of any shape.

    Raises:
        InputError: there are fewer than two weights, they are all equal, or one is not finite.
    """
    w = np.asarray(weights, np.float64).ravel()
    if w.size < 2 or not np.isfinite(w).all() or np.ptp(w) == 0:
        raise InputError(
            f"cannot fit a distribution to {w.size} weights of which {np.isfinite(w).sum()} are"
            f" finite and {np.unique(w).size} differ; expected at least two different finite ones."
        )
    mean, deviation = w.mean(), w.std()  # (1)
    median = np.median(w)
    spread = np.abs(w - median).mean()  # (3)
    return Fits(
        Fit("gaussian", mean, deviation, -np.log(deviation * np.sqrt(2 * np.pi)) - 0.5),  # (2)
        Fit("laplace", median, spread, -np.log(2 * spread) - 1),  # (4)
    )
