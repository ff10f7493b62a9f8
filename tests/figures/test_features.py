"""Geometry of rays, which angles separate, and of clusters, which L1 separates."""

import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.figures import class_geometry, class_plane

LABELS = np.repeat(np.arange(8), 200)


def rays(rng):
    """Eight directions, lengths from nearly nothing to five."""
    angle = 2 * np.pi * LABELS / 8 + rng.normal(0, 0.05, LABELS.size)
    length = rng.uniform(0.05, 5, LABELS.size)
    return length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def clusters(rng):
    """Two directions with four centres along each."""
    centre = np.stack([1 + LABELS % 4, (1 + LABELS % 4) * np.where(LABELS < 4, 1, -1)], axis=1)
    return centre + rng.laplace(0, 0.05, centre.shape)


def measured(sample, embed=lambda x: x):
    rng = np.random.default_rng(0)
    return class_geometry(embed(sample(rng)), LABELS, embed(sample(rng)), LABELS)


@pytest.mark.parametrize("width", [2, 16])
def test_rays_separate_by_angle_and_clusters_by_l1(width):
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(width, width)))[0][:2]

    def embed(x):
        return x @ basis

    angular, gathered = measured(rays, embed), measured(clusters, embed)
    assert angular.cosine.accuracy > 0.99 > 0.95 > angular.l1.accuracy
    assert gathered.l1.accuracy > 0.99 > 0.5 > gathered.cosine.accuracy
    assert angular.cosine.spread < angular.l1.spread
    assert gathered.l1.spread < 0.1


def test_golden_geometry():
    train = [[2.0, 0.0], [4.0, 0.0], [0.0, 1.0], [0.0, 3.0]]
    # directions (1, 0) and (0, 1), at cosine distance 1; centres (3, 0) and (0, 2), 5 apart in L1
    test = [[3.0, 3.0], [0.0, 5.0], [0.0, 0.0]]
    cosine, l1 = class_geometry(train, [0, 0, 7, 7], test, [0, 7, 7])
    # a tie of angles is wrong, (0, 5) is right, the zero feature has no direction
    assert cosine.accuracy == pytest.approx(1 / 3)
    assert cosine.spread == pytest.approx((1 - np.sqrt(0.5) + 0 + 1) / 3)
    # L1 to the centres: (3, 4), (8, 3), (3, 2): all three right
    assert l1.accuracy == 1
    assert l1.spread == pytest.approx((3 + 3 + 2) / 3 / 5)


def test_class_plane_holds_the_class_means_and_keeps_the_origin():
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    means = np.array([[4.0, 0, 1], [-4, 0, 1], [0, 2, -1], [0, -2, -1]])  # about their mean, 0
    labels = np.repeat(np.arange(4), 50)
    across = np.where(np.arange(200) % 2, 30.0, -30.0)  # longest of all, but not between classes
    x = means[labels] @ basis[:3] + across[:, None] * basis[3] + 7 * basis[4]
    plane = class_plane(x, labels)
    # variances of the means along their three axes: 32, 8, 4
    assert plane.share == pytest.approx(40 / 44)
    # the plane's axes are basis 0 and 1 up to sign, and what lies on neither is left out
    np.testing.assert_allclose(np.abs(plane.coordinates), np.abs(means[labels, :2]), atol=1e-12)


def test_plane_of_two_dimensional_features_is_themselves():
    x = [[1.0, -2.0], [-5.0, 0.0]]
    plane = class_plane(x, [0, 1])
    np.testing.assert_array_equal(plane.coordinates, x)
    assert plane.share == 1


def test_input_errors_name_what_was_given():
    x = np.ones((4, 3))
    with pytest.raises(InputError, match=r"shape \(4, 1\)"):
        class_plane(np.ones((4, 1)), [0, 0, 1, 1])
    with pytest.raises(InputError, match="same width"):
        class_geometry(x, [0, 0, 1, 1], np.ones((2, 5)), [0, 1])
    with pytest.raises(InputError, match="no new"):
        class_geometry(x, [0, 0, 1, 1], x, [0, 0, 1, 2])
    with pytest.raises(InputError, match="of 1 classes"):
        class_geometry(x, [0, 0, 0, 0], x, [0, 0, 0, 0])
