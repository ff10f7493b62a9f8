"""What a detector found in an image and what there is, as the measures compare them.

Both are NumPy arrays of any length; `found` and `truth` take them out of the padded arrays of a
program of fixed shapes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nnlab.errors import InputError


class Found(NamedTuple):
    """Detections of an image.

    Attributes:
        boxes: (x1, y1, x2, y2) in pixels, float64 [n, 4].
        scores: float64 [n].
        classes: int64 [n].
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


class Truth(NamedTuple):
    """Objects of an image.

    Attributes:
        boxes: (x1, y1, x2, y2) in pixels, float64 [n, 4].
        classes: int64 [n].
        ignored: bool [n]; those that count neither way: difficult ones of VOC, crowds of COCO.
        areas: float64 [n], in square pixels; COCO's are those of masks. By default of the boxes.
    """

    boxes: np.ndarray
    classes: np.ndarray
    ignored: np.ndarray
    areas: np.ndarray


def found(
    boxes: ArrayLike, scores: ArrayLike, classes: ArrayLike, mask: ArrayLike | None = None
) -> Found:
    """Return the detections of an image that a mask [n] leaves; arrays are those of `Found`.

    Raises:
        InputError: they are not of the same number, or a score is not finite.
    """
    boxes, (scores, classes) = _checked(boxes, mask, scores=scores, classes=classes)
    scores = scores.astype(np.float64)
    if not np.isfinite(scores).all():
        raise InputError(f"a score is {scores[~np.isfinite(scores)][0]}, expected them finite.")
    return Found(boxes, scores, classes.astype(np.int64))


def truth(
    boxes: ArrayLike,
    classes: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    ignored: ArrayLike | None = None,
    areas: ArrayLike | None = None,
) -> Truth:
    """Return the objects of an image that a mask [n] leaves; arrays are those of `Truth`.

    Raises:
        InputError: they are not of the same number.
    """
    n = np.asarray(classes).shape
    ignored = np.zeros(n, bool) if ignored is None else ignored
    given = np.zeros(n) if areas is None else areas
    found, (labels, left, sizes) = _checked(
        boxes, mask, classes=classes, ignored=ignored, areas=given
    )
    if areas is None:
        sizes = (found[:, 2:] - found[:, :2]).prod(axis=1)
    return Truth(found, labels.astype(np.int64), left.astype(bool), sizes.astype(np.float64))


def _checked(
    boxes: ArrayLike, mask: ArrayLike | None, **others: ArrayLike
) -> tuple[np.ndarray, list[np.ndarray]]:
    boxes = np.asarray(boxes, np.float64)
    boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes  # of no detections: [0] too
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"boxes have shape {list(boxes.shape)}, expected [n, 4].")
    if not np.isfinite(boxes).all():
        raise InputError(f"box {boxes[~np.isfinite(boxes).all(1)][0]} is not finite.")
    arrays = {name: np.asarray(array) for name, array in others.items()}
    if mask is not None:
        arrays["mask"] = np.asarray(mask)
    for name, array in arrays.items():
        if array.shape != (len(boxes),):
            raise InputError(f"{name} have shape {list(array.shape)}, expected [{len(boxes)}].")
    there = arrays.pop("mask", np.ones(len(boxes), bool)).astype(bool)
    return boxes[there], [array[there] for array in arrays.values()]


def overlaps(a: np.ndarray, b: np.ndarray, *, plus: float = 0.0) -> np.ndarray:
    """Return the IoU of boxes a [n, 4] with b [m, 4] in float64, [n, m]; `plus` adds to sides."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.maximum(high - low + plus, 0).prod(-1)
    areas = [(each[:, 2:] - each[:, :2] + plus).prod(-1) for each in (a, b)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def check_images(detections: Sequence[Found], truths: Sequence[Truth], classes: int) -> None:
    """Raise `InputError` unless both are of the same images and all classes below `classes`."""
    if len(detections) != len(truths):
        raise InputError(
            f"detections are of {len(detections)} images and objects of {len(truths)}, expected"
            " the same images."
        )
    for name, each in (("a detection", detections), ("an object", truths)):
        for image, one in enumerate(each):
            wrong = (one.classes < 0) | (one.classes >= classes)
            if wrong.any():
                raise InputError(
                    f"{name} of image {image} is of class {one.classes[wrong][0]}, expected 0 to "
                    f"{classes - 1}."
                )
