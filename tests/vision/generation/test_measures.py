import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.vision.generation import measures
from nnlab.vision.generation.measures import Statistics, fid, frechet_distance, kid

X = np.arange(24).reshape(6, 4) % 7
Y = (np.arange(20).reshape(5, 4) * 3) % 5


def test_frechet_distances_of_gaussians():
    plain = Statistics(np.zeros(4), np.eye(4))
    other = Statistics(np.array([1, -2, 0, 0.5]), 4 * np.eye(4))
    assert frechet_distance(plain, other) == pytest.approx(9.25)
    a = Statistics(np.zeros(2), np.array([[2, 0.5], [0.5, 1]]))
    b = Statistics(np.array([1.0, 0.0]), np.array([[1, -0.3], [-0.3, 0.8]]))
    assert frechet_distance(a, b) == pytest.approx(1.4505864, abs=1e-7)
    assert frechet_distance(b, a) == pytest.approx(1.4505864, abs=1e-7)


def test_distances_of_samples():
    assert fid(X, Y) == pytest.approx(7.4392145, abs=1e-7)
    assert kid(X, Y) == pytest.approx(50.05)
    assert kid(X, Y, biased=True, block=2) == pytest.approx(489.9019097, abs=1e-6)


def test_fid_is_real_with_fewer_images_than_features_and_with_collapsed_modes():
    generator = np.random.default_rng(0)
    few = generator.normal(size=(5, 40))
    same = np.ones((7, 40))
    assert np.isfinite(fid(few, same)) and fid(same, same) == 0
    assert fid(few, few) == pytest.approx(0, abs=1e-9)


def test_bias_of_two_samples_of_one_gaussian():
    """About d(d + 1)/2n + 2d/n, the floor below which a FID says nothing."""
    d, n = 20, 1000
    found = [fid(*np.random.default_rng(seed).normal(size=(2, n, d))) for seed in range(4)]
    assert np.mean(found) == pytest.approx(d * (d + 1) / (2 * n) + 2 * d / n, rel=0.1)


def test_standardising_removes_the_scale_and_keeps_dead_units():
    generator = np.random.default_rng(1)
    test, fake, train = generator.normal(size=(3, 60, 5))
    test[:, 4] = train[:, 4] = 0  # dead
    scale = np.array([1, 10, 100, 0.1, 1])
    first = measures.generation_scores(fake, test, train)
    second = measures.generation_scores(fake * scale, test * scale, train * scale)
    np.testing.assert_allclose(first[:4], second[:4], rtol=1e-9)
    assert first.fid > first.fid_floor + 0.5  # its fifth feature is alive
    assert first.images == (60, 60)


def test_features_are_gathered_over_batches():
    batches = [np.ones((2, 3, 3, 1)), np.zeros((1, 3, 3, 1))]
    features = measures.features_of(lambda x: x.mean(axis=(1, 2)), batches)
    assert features.tolist() == [[1], [1], [0]]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.ones((1, 4)), "at least two images"),
        (np.ones((4, 3)), "expected"),
        (np.full((3, 4), np.nan), "hold nan"),
    ],
)
def test_bad_features(bad, words):
    with pytest.raises(InputError, match=words):
        kid(X, bad)
