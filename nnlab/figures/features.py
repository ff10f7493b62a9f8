r"""The geometry of class features: directions from the origin, or clusters under L1.

The claim under test is that the classes of a convolutional network separate by angle, because its
layers take inner products, and those of an adder network gather around centres, because its
layers take L1 distances. Two classifiers measure it in the full feature space, each with the
representative that is best under its own measure:

=========  ======================================  ==================================
measure    distance of a feature f                 representative of a class
=========  ======================================  ==================================
cosine     1 - f.u / |f|                      (1)  u, the normalised mean of f / |f|
L1         \|f - c\|_1                        (2)  c, the coordinate-wise median
=========  ======================================  ==================================

The representatives come from training features; accuracy and spread from test features.

References:
    Chen et al., AdderNet, CVPR 2020, https://arxiv.org/abs/1912.13200, section 4 and figure 1.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nnlab.data.batches import check_shape
from nnlab.errors import InputError


class Separation(NamedTuple):
    """How well one measure tells the classes apart.

    Attributes:
        accuracy: share of test features whose nearest representative is of their own class.
        spread: mean distance of a test feature to its own class's representative, over the mean
            distance between the representatives of two classes; smaller is tighter.
    """

    accuracy: float
    spread: float


class Geometry(NamedTuple):
    """Both measures of the same features."""

    cosine: Separation
    l1: Separation


class Plane(NamedTuple):
    """Features in a plane.

    Attributes:
        coordinates: float64 [n, 2].
        share: share of the class means' variance that lies in the plane.
    """

    coordinates: np.ndarray
    share: float


def class_plane(features: ArrayLike, labels: ArrayLike) -> Plane:
    """Return coordinates of features [n, d] in the plane that best tells the classes apart.

    Its axes are the two leading principal axes of the class means [classes, d] about their mean.
    The features themselves are not centred: the origin stays the origin, and rays from it stay
    rays. Two-dimensional features are returned as they are.

    Raises:
        InputError: there is not one label for each feature.
    """
    x, labels = _matrix(features), np.asarray(labels)
    check_shape("labels", labels, (len(x),))
    if x.shape[1] == 2:
        return Plane(x, 1.0)
    means = np.stack([x[labels == c].mean(axis=0) for c in np.unique(labels)])
    _, lengths, axes = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    total = np.square(lengths).sum()
    share = float(np.square(lengths[:2]).sum() / total) if total > 0 else 1.0
    return Plane(x @ axes[:2].T, share)


def class_geometry(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    test_labels: ArrayLike,
) -> Geometry:
    """Measure separation by angle and by L1 distance.

    A zero feature has no direction: its cosine distance to everything is one, and it counts as
    wrong.

    Args:
        train_features: [n, d], what the representatives are fitted on.
        train_labels: integers [n], at least two different ones.
        test_features: [m, d], what is measured.
        test_labels: integers [m], each of them among `train_labels`.
    """
    train, test = _matrix(train_features), _matrix(test_features)
    labels, test_labels = np.asarray(train_labels), np.asarray(test_labels)
    classes = np.unique(labels)
    if train.shape[1] != test.shape[1] or not np.isin(test_labels, classes).all():
        raise InputError(
            f"test features {test.shape} with labels {np.unique(test_labels)} do not match train"
            f" features {train.shape} with labels {classes}; expected the same width and no new"
            " label."
        )
    if len(labels) != len(train) or len(test_labels) != len(test) or len(classes) < 2:
        raise InputError(
            f"{len(train)} train and {len(test)} test features came with {len(labels)} and"
            f" {len(test_labels)} labels of {len(classes)} classes; expected a label a feature and"
            " at least two classes."
        )
    own = np.searchsorted(classes, test_labels)
    unit = _normalised(train)
    directions = _normalised(np.stack([unit[labels == c].mean(axis=0) for c in classes]))
    centres = np.stack([np.median(train[labels == c], axis=0) for c in classes])
    return Geometry(
        _separation(
            1 - _normalised(test) @ directions.T, 1 - directions @ directions.T, own
        ),  # (1)
        _separation(_l1(test, centres), _l1(centres, centres), own),  # (2)
    )


def _separation(distances: np.ndarray, between: np.ndarray, own: np.ndarray) -> Separation:
    nearest = distances == distances.min(axis=1, keepdims=True)
    correct = nearest[np.arange(len(own)), own] & (nearest.sum(axis=1) == 1)  # a tie is no answer
    within = distances[np.arange(len(own)), own].mean()
    pairs = between[~np.eye(len(between), dtype=bool)].mean()
    with np.errstate(invalid="ignore", divide="ignore"):  # features that are all the same
        return Separation(float(correct.mean()), float(within / pairs))


def _l1(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.stack([np.abs(x - centre).sum(axis=1) for centre in centres], axis=1)


def _normalised(x: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1)


def _matrix(features: ArrayLike) -> np.ndarray:
    x = np.asarray(features, np.float64)
    if x.ndim != 2 or x.shape[1] < 2 or len(x) == 0:
        raise InputError(f"features have shape {x.shape}; expected [n, d] with d of two or more.")
    return x
