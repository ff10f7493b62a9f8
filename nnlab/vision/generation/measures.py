r"""How far generated images are from real ones, in the features of any network: FID and KID.

With the means and covariances (n − 1) of the features of two sets, the Fréchet distance of the two
Gaussians is

.. math::
    \mathrm{FID} = |\mu_1 - \mu_2|^2 + \mathrm{tr}\left(\Sigma_1 + \Sigma_2
        - 2 (\Sigma_1^{1/2} \Sigma_2 \Sigma_1^{1/2})^{1/2}\right),             (1)

whose last trace is the sum of the roots of eigenvalues of a symmetric matrix, taken as 0 where
rounding makes them negative: never complex, and finite with fewer images than features. With the
kernel k(x, y) = (x·y/d + 1)³ of d features, KID is the squared maximum mean discrepancy

.. math::
    \mathrm{KID} = \overline{k(x, x')} + \overline{k(y, y')} - 2\, \overline{k(x, y)}, (2)

means over pairs of different images where it is unbiased.

FID of two samples of n from the same whitened Gaussian is about d(d + 1)/2n + 2d/n, not 0: compare
sets of one size, and report beside it the floor, the distance of real training images from real
test images (`generation_scores`). Both measures grow with the scale of the features: `standardised`
gives each the variance 1 on the real test images.

References:
    Heusel et al., GANs trained by a two time-scale update rule, NeurIPS 2017,
    https://arxiv.org/abs/1706.08500, eq. (6): (1).
    Bińkowski et al., Demystifying MMD GANs, ICLR 2018, https://arxiv.org/abs/1801.01401: (2).
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nnlab.data.batches import check_shape
from nnlab.errors import InputError


def features_of(apply: Callable[[Any], Any], batches: Iterable[Any]) -> np.ndarray:
    """Return the features of images, float64 [images, features].

    Args:
        apply: returns the features [n, ...] of a batch of images, compiled or not; further axes are
            taken as one.
        batches: arrays [n, height, width, channels].

    Raises:
        InputError: there is no batch, or a feature is not finite.
    """
    parts = [np.asarray(apply(batch), np.float64) for batch in batches]
    if not parts:
        raise InputError("there are no batches, expected at least one.")
    return _checked("features", np.concatenate([part.reshape(len(part), -1) for part in parts]))


def standardised(reference: ArrayLike, *others: ArrayLike) -> list[np.ndarray]:
    """Return features with the mean 0 and the variance 1 of a reference, which comes first.

    A feature that is constant there, as that of a dead unit, is only centred, so that images that
    bring it to life are told apart.

    Args:
        reference: features of the real test images, [n, features].
        others: further ones, [any, features].

    Raises:
        InputError: these are not two axes, or not the same features.
    """
    reference = _checked("reference features", reference)
    mean, std = reference.mean(axis=0), reference.std(axis=0, ddof=1)
    std = np.where(std > 1e-12 * np.abs(mean).clip(1), std, 1)
    found = []
    for each in (reference, *others):
        each = _checked("features", each)
        check_shape("features", each, (len(each), len(mean)))
        found.append((each - mean) / std)
    return found


class Statistics(NamedTuple):
    """Mean [d] and covariance [d, d] of features, float64."""

    mean: np.ndarray
    covariance: np.ndarray


def statistics(features: ArrayLike) -> Statistics:
    """Return mean and covariance (n − 1) of features [images, d].

    Raises:
        InputError: there are fewer than two images.
    """
    x = _checked("features", features)
    centred = x - x.mean(axis=0)
    return Statistics(x.mean(axis=0), centred.T @ centred / (len(x) - 1))


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """Return (1), at least 0.

    Raises:
        InputError: these are not statistics of the same features.
    """
    mean, covariance = (np.asarray(each, np.float64) for each in a)
    mean_b, covariance_b = (np.asarray(each, np.float64) for each in b)
    check_shape("means", mean_b, mean.shape)
    for each in (covariance, covariance_b):
        check_shape("covariances", each, (len(mean), len(mean)))
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    roots = np.sqrt(np.linalg.eigvalsh(root @ covariance_b @ root).clip(0))
    apart = ((mean - mean_b) ** 2).sum()
    distance = apart + np.trace(covariance) + np.trace(covariance_b) - 2 * roots.sum()
    return float(max(distance, 0))


def fid(real: ArrayLike, fake: ArrayLike) -> float:
    """Return (1) of two sets of features [n, d] and [m, d].

    Raises:
        InputError: a set has fewer than two images, or they have other features.
    """
    return frechet_distance(statistics(real), statistics(fake))


def kid(real: ArrayLike, fake: ArrayLike, *, biased: bool = False, block: int = 2048) -> float:
    """Return (2) of two sets of features [n, d] and [m, d]; unbiased it may be below 0.

    Args:
        real, fake: features.
        biased: whether an image is also paired with itself.
        block: images compared at once, for the memory.

    Raises:
        InputError: a set has fewer than two images, or they have other features.
    """
    x, y = _checked("real features", real), _checked("fake features", fake)
    check_shape("fake features", y, (len(y), x.shape[1]))

    def total(a: np.ndarray, b: np.ndarray) -> float:
        starts = range(0, len(a), block)
        return sum(float(((a[i : i + block] @ b.T / a.shape[1] + 1) ** 3).sum()) for i in starts)

    def within(a: np.ndarray) -> float:
        if biased:
            return total(a, a) / len(a) ** 2
        own = float((((a * a).sum(axis=1) / a.shape[1] + 1) ** 3).sum())
        return (total(a, a) - own) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2 * total(x, y) / (len(x) * len(y))


class GenerationScores(NamedTuple):
    """FID and KID of generated images, and what real ones get.

    Attributes:
        fid, kid: generated images against real test images.
        fid_floor, kid_floor: real training images, as many as were generated, against them.
        images: how many were generated, and how many real test images there are.
    """

    fid: float
    kid: float
    fid_floor: float
    kid_floor: float
    images: tuple[int, int]


def generation_scores(
    fake: ArrayLike, test: ArrayLike, train: ArrayLike, *, standardise: bool = True
) -> GenerationScores:
    """Return FID and KID against real test images, with their floor.

    Args:
        fake: features of generated images, [n, d].
        test: features of real images that no training has seen, [m, d].
        train: features of real training images, [n or more, d]; the first n are taken.
        standardise: whether features get the variance 1 on `test`.

    Raises:
        InputError: a set has fewer than two images, there are fewer training images than generated
            ones, or they have other features.
    """
    fake, test, train = (
        _checked(f"{name} features", each)
        for name, each in (("fake", fake), ("test", test), ("train", train))
    )
    if len(train) < len(fake):
        raise InputError(
            f"there are features of {len(train)} training images, expected at least those of "
            f"{len(fake)}, as many as were generated."
        )
    train = train[: len(fake)]
    if standardise:
        test, fake, train = standardised(test, fake, train)
    return GenerationScores(
        fid(test, fake),
        kid(test, fake),
        fid(test, train),
        kid(test, train),
        (len(fake), len(test)),
    )


def _checked(name: str, features: ArrayLike) -> np.ndarray:
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < 2:
        expected = "expected [images, features] of at least two images"
        raise InputError(f"{name} have shape {list(features.shape)}, {expected}.")
    if not np.isfinite(features).all():
        raise InputError(
            f"{name} hold {features[~np.isfinite(features)][0]}, expected finite ones."
        )
    return features
