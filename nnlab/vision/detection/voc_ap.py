"""Average precision of Pascal VOC, in its three conventions.

In the order of scores, a detection looks at the object of its class and image that it overlaps
most. It is right if the IoU is at least the threshold and the object was not found before; it is
left out if that object is difficult, and wrong otherwise. The precision and recall of all
detections up to each give a curve, made to fall by taking the largest precision to the right, and
the average precision is

================  ==============================================================================
"eleven"          the mean at recalls 0, 0.1, …, 1 (until 2009)
"all"             the area below the curve (from 2010 on)
`inclusive=True`  with both corners of boxes as pixels of theirs, a side being 1 longer: devkit
================  ==============================================================================

References:
    Everingham et al., The Pascal visual object classes challenge, IJCV 2010, section 4.2; devkit of
    VOC 2012 (VOCevaldet.m).
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from nnlab.errors import InputError
from nnlab.vision.detection.found import Found, Truth, check_images, overlaps

Points = Literal["all", "eleven"]


class Curve(NamedTuple):
    """Precision and recall of one class.

    Attributes:
        precision, recall: float64 [detections that count], the highest score first.
        scores: float64, theirs.
        right: bool, which of them found an object.
        objects: how many there are, without difficult ones.
    """

    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    right: np.ndarray
    objects: int


class AveragePrecision(NamedTuple):
    """Average precision at one threshold.

    Attributes:
        mean: over the classes that have objects; NaN if none has.
        by_class: float64 [classes], NaN for a class without objects.
        curves: of each class.
    """

    mean: float
    by_class: np.ndarray
    curves: list[Curve]


def voc_ap(
    detections: Sequence[Found],
    truths: Sequence[Truth],
    classes: int,
    *,
    threshold: float = 0.5,
    points: Points = "all",
    inclusive: bool = False,
) -> AveragePrecision:
    """Return the average precision of each class and their mean.

    Args:
        detections: of each image, from `nnlab.vision.detection.found`.
        truths: objects of each image, from `nnlab.vision.detection.truth`; those `ignored` are
            difficult.
        classes: number of classes.
        threshold: the least IoU of a detection that is right.
        points, inclusive: the convention.

    Raises:
        InputError: the images differ in number, or a class is none.
    """
    check_images(detections, truths, classes)
    if points not in ("all", "eleven"):
        raise InputError(f'points is {points!r}, expected "all" or "eleven".')
    curves = [
        _curve(detections, truths, number, threshold, float(inclusive)) for number in range(classes)
    ]
    area = _eleven if points == "eleven" else _area
    by_class = np.array([area(curve) if curve.objects else np.nan for curve in curves])
    seen = by_class[~np.isnan(by_class)]
    return AveragePrecision(float(seen.mean()) if len(seen) else float("nan"), by_class, curves)


def _curve(
    detections: Sequence[Found], truths: Sequence[Truth], number: int, threshold: float, plus: float
) -> Curve:
    scores, kinds, objects = [], [], 0  # a kind: 1 right, 0 wrong, -1 left out
    for one, there in zip(detections, truths, strict=True):
        mine, its = one.classes == number, there.classes == number
        difficult = there.ignored[its]
        objects += int((~difficult).sum())
        order = np.argsort(-one.scores[mine], kind="stable")
        scores.append(one.scores[mine][order])
        shared = overlaps(one.boxes[mine][order], there.boxes[its], plus=plus)
        taken = np.zeros(len(difficult), bool)
        for row in shared:
            best = int(row.argmax()) if len(row) else -1
            if best < 0 or row[best] < threshold:
                kinds.append(0)
            elif difficult[best]:
                kinds.append(-1)
            else:
                kinds.append(int(not taken[best]))
                taken[best] = True
    all_scores, kind = np.concatenate([*scores, np.zeros(0)]), np.array(kinds, int)
    order = np.argsort(-all_scores, kind="stable")
    order = order[kind[order] >= 0]
    right = kind[order] == 1
    found = right.cumsum()
    precision = found / np.arange(1, len(found) + 1)
    recall = found / objects if objects else np.full(len(found), np.nan)
    return Curve(precision, recall, all_scores[order], right, objects)


def _eleven(curve: Curve) -> float:
    reached = [curve.precision[curve.recall >= r] for r in np.linspace(0, 1, 11)]
    return float(np.mean([some.max(initial=0) for some in reached]))


def _area(curve: Curve) -> float:
    recall = np.concatenate([[0.0], curve.recall])
    falling = np.maximum.accumulate(curve.precision[::-1])[::-1]
    return float((np.diff(recall) * falling).sum())
