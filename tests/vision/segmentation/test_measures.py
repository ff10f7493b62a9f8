import jax
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.vision.segmentation.measures import (
    confusion,
    mean_iou,
    median_frequency_weights,
    segmented,
)

T = np.array([[0, 0, 1, 1], [0, 2, 1, 255], [2, 2, 2, 255], [0, 0, 1, 1]])
P = np.array([[0, 1, 1, 1], [0, 2, 1, 3], [2, 2, 0, 1], [0, 0, 1, 4]])


count = jax.jit(confusion, static_argnums=2)


@pytest.fixture(scope="module")
def scores():
    return segmented(count(T, P, 5))


def test_golden(scores):
    """The mean is also that of torchmetrics 1.9.0, MulticlassJaccardIndex(ignore_index=255)."""
    np.testing.assert_allclose(scores.iou, [2 / 3, 2 / 3, 0.75, np.nan, 0], rtol=1e-12)
    np.testing.assert_allclose(
        [scores.mean_iou, scores.accuracy, scores.class_accuracy, scores.weighted_iou],
        [0.5208333, 0.7857143, 0.7833333, 0.6904762],
        atol=1e-7,
    )
    np.testing.assert_allclose(mean_iou(count(T, P, 5)), scores.mean_iou, rtol=1e-6)
    np.testing.assert_allclose(scores.dice[:3], 2 * scores.iou[:3] / (1 + scores.iou[:3]))


def test_predicting_the_ignored_id_or_no_class_is_wrong():
    targets = np.array([1, 1, 255])
    matrix = count(targets, np.array([255, 7, 1]), 2)
    assert matrix.tolist() == [[0, 0, 0], [0, 0, 2]]
    assert segmented(matrix).accuracy == 0


def test_a_target_of_no_class_is_named():
    with pytest.raises(InputError, match=r"a target is 255, expected 0 to 1\."):
        confusion(np.array([0, 255]), np.array([0, 1]), 2, ignore=None)  # a mask of 0 and 255
    with pytest.raises(InputError, match="targets are float"):
        confusion(np.array([0.0]), np.array([0]), 2)


def test_nothing_counted_is_nan():
    nothing = segmented(np.zeros((2, 3), int))
    assert np.isnan(nothing.mean_iou) and np.isnan(nothing.accuracy)


def test_matrices_add_up():
    both = [np.asarray(count(T[part], P[part], 5)) for part in (slice(0, 2), slice(2, 4))]
    np.testing.assert_array_equal(both[0] + both[1], count(T, P, 5))


def test_median_frequencies():
    images = [np.array([[0, 0, 0, 1]]), np.array([[0, 0, 255, 255], [0, 0, 0, 0]])]
    # 0: 9 of 10 pixels; 1: 1 of the 4 of the first image; 2: nowhere. The median is that of two.
    weights = median_frequency_weights(images, 3)
    np.testing.assert_allclose(weights, [0.575 / 0.9, 0.575 / 0.25, 0])
