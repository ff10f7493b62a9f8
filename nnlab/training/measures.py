r"""Measures of a classification over all outputs at once, for which no mean of batches will do.

With n examples of labels :math:`y_i`, outputs :math:`z_i` (logits), predictions
:math:`\hat y_i = \arg\max_c z_{ic}` and confidences :math:`p_i = \max_c \text{softmax}(z_i)_c`,

.. math::
    C_{ab} = |\{i : y_i = a, \hat y_i = b\}|                                       \qquad (1)

.. math::
    \text{recall}_c = \frac{C_{cc}}{\sum_b C_{cb}}, \quad
    \text{precision}_c = \frac{C_{cc}}{\sum_a C_{ac}}, \quad
    F_{1,c} = \frac{2 C_{cc}}{\sum_b C_{cb} + \sum_a C_{ac}}                       \qquad (2)

.. math::
    \text{ECE} = \frac1n \sum_m \left| \sum_{i \in B_m} ([\hat y_i = y_i] - p_i) \right| \qquad (3)

where bin m of M holds the examples with :math:`p_i \in ((m - 1) / M, m / M]`. The recall of a class
is the accuracy on its examples. All is computed in float64 on the host.

References:
    van Rijsbergen, Information Retrieval, 2nd edition, 1979, chapter 7, for (2).
    Guo et al., On calibration of modern neural networks, ICML 2017,
    https://arxiv.org/abs/1706.04599, section 2, for (3) and reliability diagrams.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from nnlab.data.batches import hint_of_classes
from nnlab.errors import InputError, check_count

BINS = 15  # as in Guo et al.
_FEW = 30  # classes, up to which JSON holds the whole confusion matrix
_TOP = 5


class Reliability(NamedTuple):
    """How far confidence is accuracy, in M bins of equal width from 0 to 1.

    Attributes:
        count: int64 [M], examples in each bin.
        confidence: float64 [M], their mean confidence; NaN in an empty bin.
        accuracy: float64 [M], the part of them that is predicted right; NaN in an empty bin.
    """

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error, equation (3)."""
        gaps = np.nan_to_num(abs(self.accuracy - self.confidence))
        return float((self.count * gaps).sum() / self.count.sum())


class Measures(NamedTuple):
    """What `measure` finds.

    Attributes:
        confusion: int64 [classes, classes], equation (1).
        top_k: {k: the part of labels among the k largest outputs}; k is 5 where that is below the
            number of classes.
        reliability: confidence against accuracy.
    """

    confusion: np.ndarray
    top_k: dict[int, float]
    reliability: Reliability

    @property
    def accuracy(self) -> float:
        """The part of all examples that is predicted right."""
        return float(self.confusion.trace() / self.confusion.sum())

    def as_json(self) -> dict[str, Any]:
        """Return the measures as JSON holds them, to six digits.

        One value a class of accuracy, precision and F1, the calibration error with its bins, and
        the confusion matrix or, of more than 30 classes, the 30 most frequent confusions as
        [true, predicted, examples].
        """
        classes = len(self.confusion)
        found: dict[str, Any] = {
            "examples": int(self.confusion.sum()),
            "accuracy": self.accuracy,
            **{f"top_{k}": value for k, value in self.top_k.items()},
            "macro_f1": macro_f1(self.confusion),
            "calibration_error": self.reliability.error,
            "class_accuracy": recall(self.confusion).tolist(),
            "class_precision": precision(self.confusion).tolist(),
            "class_f1": f1(self.confusion).tolist(),
            "reliability": {key: v.tolist() for key, v in self.reliability._asdict().items()},
        }
        if classes <= _FEW:
            found["confusion"] = self.confusion.tolist()
        else:
            found["confusions"] = most_confused(self.confusion, _FEW)
        return _rounded(found)


def measure(outputs: ArrayLike, labels: ArrayLike, bins: int = BINS) -> Measures:
    """Return all measures of a classification.

    Args:
        outputs: logits [n, classes], floating point.
        labels: integers [n] from 0 to classes - 1.
        bins: of the reliability.

    Raises:
        InputError: shapes or types are others, an output is NaN, or there are no examples.
    """
    z, y = _checked(outputs, labels)
    classes = z.shape[1]
    top_k = {_TOP: top_k_accuracy(z, y, _TOP)} if classes > _TOP else {}
    return Measures(confusion_matrix(z.argmax(axis=1), y, classes), top_k, reliability(z, y, bins))


def is_classification(outputs: Any, labels: Any) -> bool:
    """Return whether `measure` takes arrays of these shapes and dtypes."""
    return (
        hasattr(outputs, "shape")
        and hasattr(labels, "shape")
        and len(outputs.shape) == 2
        and outputs.shape[1] > 1
        and tuple(labels.shape) == tuple(outputs.shape[:1])
        and jnp.issubdtype(outputs.dtype, jnp.floating)
        and jnp.issubdtype(labels.dtype, jnp.integer)
    )


def confusion_matrix(predicted: ArrayLike, labels: ArrayLike, classes: int) -> np.ndarray:
    """Count the examples of each true and predicted class, int64 [true, predicted], equation (1).

    Args:
        predicted, labels: integers [n] from 0 to `classes` - 1.
        classes: number of classes.

    Raises:
        InputError: they are not, or there are no examples.
    """
    check_count("classes", classes)
    predicted, labels = (_classes_of(x, classes) for x in (predicted, labels))
    if len(predicted) != len(labels):
        raise InputError(f"{len(predicted)} predictions and {len(labels)} labels were given.")
    pairs = np.bincount(labels * classes + predicted, minlength=classes**2)
    return pairs.reshape(classes, classes)


def recall(confusion: ArrayLike) -> np.ndarray:
    """Return the accuracy by class, float64 [classes], equation (2); NaN without examples."""
    confusion = _square(confusion)
    return _ratio(confusion.diagonal(), confusion.sum(axis=1))


def precision(confusion: ArrayLike) -> np.ndarray:
    """Return the part of each class's predictions that is right, equation (2).

    It is float64 [classes], and NaN where a class is never predicted.
    """
    confusion = _square(confusion)
    return _ratio(confusion.diagonal(), confusion.sum(axis=0))


def f1(confusion: ArrayLike) -> np.ndarray:
    """Return F1 by class, float64 [classes], equation (2).

    It is 0 where a class is never predicted right, and NaN where it neither occurs nor is
    predicted.
    """
    confusion = _square(confusion)
    return _ratio(2 * confusion.diagonal(), confusion.sum(axis=0) + confusion.sum(axis=1))


def macro_f1(confusion: ArrayLike) -> float:
    """Return the mean of F1 over the classes that occur or are predicted."""
    return float(np.nanmean(f1(confusion)))


def most_confused(confusion: ArrayLike, count: int) -> list[list[int]]:
    """Return the most frequent confusions as [true, predicted, examples], at most `count`."""
    wrong = _square(confusion).copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = np.stack(np.unravel_index(order, wrong.shape), axis=1)
    return [[int(a), int(b), int(wrong[a, b])] for a, b in pairs if wrong[a, b]]


def top_k_accuracy(outputs: ArrayLike, labels: ArrayLike, k: int) -> float:
    """Return the part of labels among the k classes of largest outputs; of equals the first counts.

    Args:
        outputs, labels: as for `measure`.
        k: from 1 to the number of classes.

    Raises:
        InputError: as for `measure`, or k is out of range.
    """
    z, y = _checked(outputs, labels)
    check_count("k", k)
    if k > z.shape[1]:
        raise InputError(f"k must be at most the {z.shape[1]} classes, not {k}.")
    own = np.take_along_axis(z, y[:, None], axis=1)
    before = (z > own) | ((z == own) & (np.arange(z.shape[1]) < y[:, None]))
    return float((before.sum(axis=1) < k).mean())


def confidences(outputs: ArrayLike) -> np.ndarray:
    """Return the largest softmax of each row of logits [n, classes], float64 [n]."""
    z = np.asarray(outputs, np.float64)
    return 1 / np.exp(z - z.max(axis=1, keepdims=True)).sum(axis=1)


def reliability(outputs: ArrayLike, labels: ArrayLike, bins: int = BINS) -> Reliability:
    """Return confidence against accuracy in bins, equation (3).

    Args:
        outputs, labels: as for `measure`.
        bins: their number.

    Raises:
        InputError: as for `measure`, or there is no bin.
    """
    z, y = _checked(outputs, labels)
    check_count("bins", bins)
    p, right = confidences(z), z.argmax(axis=1) == y
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    place = np.searchsorted(inner, p)  # in bin m, (m / bins, (m + 1) / bins]
    count = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, each, bins) for each in (p, right))
    return Reliability(count, *(_ratio(each, count) for each in sums))


def confident_errors(outputs: ArrayLike, labels: ArrayLike, count: int) -> np.ndarray:
    """Return the numbers of the wrong predictions of greatest confidence, at most `count` of them.

    Raises:
        InputError: as for `measure`, or `count` is below 1.
    """
    z, y = _checked(outputs, labels)
    check_count("count", count)
    wrong = np.flatnonzero(z.argmax(axis=1) != y)
    return wrong[np.argsort(-confidences(z[wrong]), kind="stable")[:count]] if len(wrong) else wrong


def _checked(outputs: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    z = np.asarray(jax.device_get(outputs))
    if z.ndim != 2 or not z.size:
        raise InputError(f"outputs have shape {list(z.shape)}, expected logits [n, classes].")
    z = z.astype(np.float64)  # bfloat16 too
    if np.isnan(z).any():
        raise InputError("outputs hold NaN, expected numbers.")
    y = _classes_of(labels, z.shape[1])
    if len(y) != len(z):
        raise InputError(f"labels have shape {list(y.shape)}, expected [{len(z)}], one an output.")
    return z, y


def _classes_of(labels: ArrayLike, classes: int) -> np.ndarray:
    y = np.asarray(jax.device_get(labels))
    if y.ndim != 1 or not y.size or y.dtype.kind not in "iu":
        hint = hint_of_classes(y, 1)
        raise InputError(f"labels are {y.dtype}{list(y.shape)}, expected integers [n]{hint}.")
    if not 0 <= y.min() <= y.max() < classes:
        raise InputError(
            f"labels go from {y.min()} to {y.max()}, expected classes from 0 to {classes - 1}."
        )
    return y.astype(np.int64)


def _square(confusion: ArrayLike) -> np.ndarray:
    found = np.asarray(confusion)
    if found.ndim != 2 or found.shape[0] != found.shape[1] or not found.size:
        raise InputError(
            f"a confusion matrix has shape {list(found.shape)}, expected [classes, classes]."
        )
    return found


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Divide, with NaN where there is nothing to divide by."""
    return np.where(below > 0, above / np.maximum(below, 1), np.nan)


def _rounded(value: Any) -> Any:
    """Round to six digits; what is not a number in JSON becomes None."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    return value
