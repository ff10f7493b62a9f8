r"""How well every pixel gets its class: IoU and accuracies from one confusion matrix.

With n_ij pixels of class i that are predicted as j, over a whole set, t_i = Σ_j n_ij of class i
and p_i = Σ_j n_ji predicted as it,

.. math::
    \mathrm{IoU}_i = \frac{n_{ii}}{t_i + p_i - n_{ii}}, \quad
    \mathrm{accuracy}_i = \frac{n_{ii}}{t_i}, \quad
    \mathrm{Dice}_i = \frac{2 n_{ii}}{t_i + p_i}.

A pixel is ignored where its **target** is the id for that. One that is predicted as this id, or as
a class that there is not, is wrong. A class that is neither there nor predicted has no IoU (NaN)
and is left out of the mean.

References:
    Long et al., Fully convolutional networks, CVPR 2015, https://arxiv.org/abs/1411.4038,
    section 5. Eigen and Fergus, ICCV 2015, https://arxiv.org/abs/1411.4734, for median frequencies.
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpy.typing import ArrayLike

from nnlab.data.batches import check_shape
from nnlab.errors import InputError, check_count

IGNORE = 255


def confusion(
    targets: ArrayLike, predictions: ArrayLike, classes: int, *, ignore: int | None = IGNORE
) -> jax.Array:
    """Count pixels by class and prediction; of several batches these add up.

    Args:
        targets: numbers of classes, integers [...].
        predictions: the same, in the shape of the targets.
        classes: number of classes.
        ignore: the target of pixels that do not count, or None.

    Returns:
        int32 [classes, classes + 1]; the last column counts predictions of no class.

    Raises:
        InputError: the shapes differ, or these are no integers; or, outside of `jit`, a target is
            neither a class nor `ignore`. Within `jit` such a pixel is not counted.
    """
    check_count("classes", classes)
    targets, predictions = jnp.asarray(targets), jnp.asarray(predictions)
    check_shape("predictions", predictions, targets.shape)
    for name, each in (("targets", targets), ("predictions", predictions)):
        if not jnp.issubdtype(each.dtype, jnp.integer):
            raise InputError(f"{name} are {each.dtype}, expected integers, the numbers of classes.")
    if not isinstance(targets, Tracer):
        values = np.unique(np.asarray(targets))
        unknown = values[((values < 0) | (values >= classes)) & (values != ignore)]
        if len(unknown):
            also = "" if ignore is None else f" or {ignore}"
            raise InputError(f"a target is {unknown[0]}, expected 0 to {classes - 1}{also}.")
    targets, predictions = targets.astype(jnp.int32), predictions.astype(jnp.int32)
    counted = (targets >= 0) & (targets < classes)
    if ignore is not None:
        counted &= targets != ignore
    is_class = (predictions >= 0) & (predictions < classes)
    column = jnp.where(is_class, predictions, classes)
    size = classes * (classes + 1)
    place = jnp.where(counted, targets * (classes + 1) + column, size)
    return jnp.bincount(place.ravel(), length=size + 1)[:size].reshape(classes, classes + 1)


class Segmented(NamedTuple):
    """Measures of a confusion matrix, float64 from 0 to 1.

    Attributes:
        mean_iou: over the classes that are there or predicted.
        iou: of each class, [classes], or NaN.
        accuracy: part of all pixels that is right.
        class_accuracy: mean over the classes that are there.
        weighted_iou: mean of IoU over pixels.
        dice: of each class, [classes], or NaN.
    """

    mean_iou: float
    iou: np.ndarray
    accuracy: float
    class_accuracy: float
    weighted_iou: float
    dice: np.ndarray


def segmented(matrix: ArrayLike) -> Segmented:
    """Return the measures of a confusion matrix [classes, classes + 1] of `confusion`.

    Raises:
        InputError: it has another shape.
    """
    counts = np.asarray(matrix).astype(np.float64)
    if counts.ndim != 2 or counts.shape[1] != counts.shape[0] + 1:
        expected = "expected [classes, classes + 1]"
        raise InputError(f"a confusion matrix has shape {list(counts.shape)}, {expected}.")
    right, there = np.diag(counts[:, :-1]), counts.sum(1)
    predicted = counts[:, :-1].sum(0)
    iou = _ratio(right, there + predicted - right)
    total = there.sum()
    return Segmented(
        _mean(iou),
        iou,
        float(_ratio(right.sum(), total)),
        _mean(_ratio(right, there)),
        float(_ratio(np.nansum(np.where(there > 0, iou * there, 0)), total)),
        _ratio(2 * right, there + predicted),
    )


def mean_iou(matrix: ArrayLike) -> jax.Array:
    """Return the mean IoU of `segmented` alone, float32, also within `jit`; NaN of no pixel.

    Args:
        matrix: of `confusion`, [classes, classes + 1].
    """
    counts = jnp.asarray(matrix, jnp.float32)
    right = jnp.diagonal(counts[:, :-1])
    union = counts.sum(1) + counts[:, :-1].sum(0) - right
    there = union > 0
    return jnp.sum(right / jnp.where(there, union, 1)) / there.sum()


def median_frequency_weights(
    targets: Iterable[np.ndarray], classes: int, *, ignore: int | None = IGNORE
) -> np.ndarray:
    """Return weights of classes for the loss: the median of their frequencies over each one's.

    The frequency of a class is the part of its pixels in the images that have it, without ignored
    pixels.

    Args:
        targets: label images, integers [height, width], of any sizes.
        classes: number of classes.
        ignore: the target of pixels that do not count, or None.

    Returns:
        float64 [classes]; 0 for a class that no image has.

    Raises:
        InputError: no image has any class.
    """
    pixels, images = np.zeros(classes), np.zeros(classes)
    for image in targets:
        counted = image[
            (image >= 0) & (image < classes) & (image != (-1 if ignore is None else ignore))
        ]
        here = np.bincount(counted.ravel(), minlength=classes)
        pixels += here
        images += np.where(here > 0, here.sum(), 0)
    if not images.any():
        raise InputError(f"no pixel is of a class, expected some of 0 to {classes - 1}.")
    frequency = _ratio(pixels, images)
    return np.nan_to_num(np.nanmedian(frequency) / frequency)


def _ratio(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.divide(a, b, out=np.full(np.broadcast_shapes(a.shape, b.shape), np.nan), where=b > 0)


def _mean(values: np.ndarray) -> float:
    return float("nan") if np.isnan(values).all() else float(np.nanmean(values))
