"""Measures of a classification, against scikit-learn and counts by hand."""

import json

import numpy as np
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve

from nnlab.errors import InputError
from nnlab.training import measures
from nnlab.training.measures import confusion_matrix, measure, reliability, top_k_accuracy

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 7, 200)
LOGITS = (2 * np.eye(7)[LABELS] + RNG.normal(0, 1.5, (200, 7))).astype(np.float32)
PREDICTED = LOGITS.argmax(axis=1)
FOUND = measure(LOGITS, LABELS)


def test_the_same_as_scikit_learn():
    np.testing.assert_array_equal(FOUND.confusion, metrics.confusion_matrix(LABELS, PREDICTED))
    assert FOUND.accuracy == metrics.accuracy_score(LABELS, PREDICTED)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(LABELS, PREDICTED)
    np.testing.assert_allclose(measures.precision(FOUND.confusion), precision)
    np.testing.assert_allclose(measures.recall(FOUND.confusion), recall)
    np.testing.assert_allclose(measures.f1(FOUND.confusion), f1)
    macro = metrics.f1_score(LABELS, PREDICTED, average="macro")
    assert measures.macro_f1(FOUND.confusion) == pytest.approx(macro)
    for k in range(1, 7):
        expected = metrics.top_k_accuracy_score(LABELS, LOGITS, k=k)
        assert top_k_accuracy(LOGITS, LABELS, k) == pytest.approx(expected)
    assert FOUND.top_k == {5: top_k_accuracy(LOGITS, LABELS, 5)}


def test_reliability_is_the_calibration_curve_of_being_right():
    z = LOGITS.astype(np.float64)
    p = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)).max(axis=1)
    right = PREDICTED == LABELS
    parts, means = calibration_curve(right, p, n_bins=15)
    filled = FOUND.reliability.count > 0
    np.testing.assert_allclose(FOUND.reliability.accuracy[filled], parts)
    np.testing.assert_allclose(FOUND.reliability.confidence[filled], means)
    assert FOUND.reliability.count.sum() == 200
    bins = np.ceil(p * 15)
    gaps = [abs((right[bins == b] - p[bins == b]).sum()) for b in range(1, 16)]
    assert FOUND.reliability.error == pytest.approx(sum(gaps) / 200)


def test_by_hand():
    """Three classes, the last of which never occurs and is predicted once."""
    labels = np.array([0, 0, 0, 1])
    outputs = np.log([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.2, 0.2, 0.6], [0.05, 0.9, 0.05]])
    found = measure(outputs, labels, bins=2)
    assert found.confusion.tolist() == [[1, 1, 1], [0, 1, 0], [0, 0, 0]]
    np.testing.assert_array_equal(measures.recall(found.confusion), [1 / 3, 1, np.nan])
    np.testing.assert_array_equal(measures.precision(found.confusion), [1, 1 / 2, 0])
    np.testing.assert_allclose(measures.f1(found.confusion), [1 / 2, 2 / 3, 0])
    assert measures.macro_f1(found.confusion) == pytest.approx(7 / 18)
    # All four are confident of more than a half, 0.7 on the average, and two are right.
    assert found.reliability.count.tolist() == [0, 4]
    assert found.reliability.error == pytest.approx(0.2)
    assert measures.confident_errors(outputs, labels, 5).tolist() == [1, 2]
    assert measures.most_confused(found.confusion, 1) == [[0, 1, 1]]
    assert found.top_k == {}
    held = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert held["class_accuracy"] == [0.333333, 1.0, None]
    assert held["reliability"]["accuracy"] == [None, 0.5]
    assert held["confusion"] == found.confusion.tolist()


def test_of_equal_outputs_the_first_counts_as_in_a_prediction():
    zeros = np.zeros((3, 3))
    assert [top_k_accuracy(zeros, np.arange(3), k) for k in (1, 2, 3)] == [1 / 3, 2 / 3, 1]
    edge = np.log([[0.5, 0.5 - 1e-12, 1e-12]])
    assert reliability(edge, np.array([0]), bins=2).count.tolist() == [1, 0]


def test_many_classes_hold_the_most_frequent_confusions():
    labels = np.repeat(np.arange(40), 3)
    outputs = np.eye(40)[np.where(labels == 7, 9, labels)]
    found = measure(outputs, labels).as_json()
    assert found["confusions"] == [[7, 9, 3]] and "confusion" not in found


@pytest.mark.parametrize(
    ("outputs", "labels", "said"),
    [
        (LOGITS[:, 0], LABELS, r"shape \[200\], expected logits"),
        (LOGITS, LABELS[:5], r"shape \[5\], expected \[200\]"),
        (LOGITS, LABELS * 1.0, "float64.*expected integers"),
        (LOGITS, LABELS + 1, "from 1 to 7, expected classes from 0 to 6"),
        (np.full((2, 3), np.nan), np.zeros(2, int), "hold NaN"),
        (np.zeros((0, 3)), np.zeros(0, int), "expected logits"),
    ],
)
def test_what_is_no_classification_is_refused(outputs, labels, said):
    with pytest.raises(InputError, match=said):
        measure(outputs, labels)


def test_numbers_out_of_range_are_refused():
    with pytest.raises(InputError, match="k must be at most the 7 classes, not 8"):
        top_k_accuracy(LOGITS, LABELS, 8)
    with pytest.raises(InputError, match="bins must be"):
        reliability(LOGITS, LABELS, 0)
    with pytest.raises(InputError, match=r"shape \[2\], expected \[classes, classes\]"):
        measures.f1([1, 2])
    with pytest.raises(InputError, match="2 predictions and 3 labels"):
        confusion_matrix([0, 1], [0, 1, 1], 2)
