"""Average precision and recall of COCO: means over ten thresholds, and over sizes of objects.

In the order of scores, at most 100 of an image and class, a detection takes the object of the
largest IoU, of those that are free and reach the threshold; of equal ones the last. An object
outside the range of areas, or a crowd, is taken only where no other is left, and then counts
neither way, as does a free detection outside the range. A detection within a crowd has all its area
in it, and any number may be. Precision is read at the recalls 0, 0.01, …, 1.

A class without objects is -1 and left out of means; a mean of nothing is -1. `pycocotools_ap` asks
COCO's own program, of the extra `detection`.

References:
    Lin et al., Microsoft COCO, ECCV 2014, https://arxiv.org/abs/1405.0312, and pycocotools 2.0.11
    (cocoeval.py), whose figures these are.
"""

import contextlib
import importlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nnlab.errors import needs
from nnlab.vision.detection.found import Found, Truth, check_images

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
_LIMITS = (1, 10, 100)
_AREAS = ((0, 1e5**2), (0, 32**2), (32**2, 96**2), (96**2, 1e5**2))  # all, small, medium, large


class CocoScores(NamedTuple):
    """The twelve figures of COCO, from 0 to 1, or -1 where there is nothing to measure.

    Attributes:
        ap: mean over the thresholds 0.5, 0.55, …, 0.95 and over classes.
        ap50, ap75: at one threshold.
        ap_small, ap_medium, ap_large: `ap` of objects below 32², up to 96², and above.
        ar1, ar10, ar100: the largest recall with so many detections an image and class.
        ar_small, ar_medium, ar_large: `ar100` by size.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float


class CocoResult(NamedTuple):
    """COCO's figures, and those of each class.

    Attributes:
        scores: the twelve.
        ap_by_class, ar_by_class: `ap` and `ar100` of each, float64 [classes], -1 without objects.
        precision: [thresholds, recalls, classes, areas], at 100 detections.
    """

    scores: CocoScores
    ap_by_class: np.ndarray
    ar_by_class: np.ndarray
    precision: np.ndarray


def coco_ap(detections: Sequence[Found], truths: Sequence[Truth], classes: int) -> CocoResult:
    """Return COCO's average precision and recall.

    Args:
        detections: of each image, from `nnlab.vision.detection.found`.
        truths: objects of each image, from `nnlab.vision.detection.truth`; those `ignored` are
            crowds.
        classes: number of classes.

    Raises:
        InputError: the images differ in number, or a class is none.
    """
    check_images(detections, truths, classes)
    shape = (len(THRESHOLDS), len(RECALLS), classes, len(_AREAS))
    precision = -np.ones(shape)
    recall = -np.ones((len(THRESHOLDS), classes, len(_AREAS), len(_LIMITS)))
    for number in range(classes):
        pairs = [
            _of_class(one, there, number) for one, there in zip(detections, truths, strict=True)
        ]
        for size, bounds in enumerate(_AREAS):
            matched = [_match(*pair, bounds=bounds) for pair in pairs]
            objects = sum(each.objects for each in matched)
            if not objects:
                continue
            for place, limit in enumerate(_LIMITS):
                at, reached = _read(matched, limit, objects)
                recall[:, number, size, place] = reached
                if limit == _LIMITS[-1]:
                    precision[:, :, number, size] = at

    scores = CocoScores(
        *(_mean(precision[..., 0]), _mean(precision[0, ..., 0]), _mean(precision[5, ..., 0])),
        *(_mean(precision[..., size]) for size in (1, 2, 3)),
        *(_mean(recall[:, :, 0, place]) for place in (0, 1, 2)),
        *(_mean(recall[:, :, size, 2]) for size in (1, 2, 3)),
    )
    ap = np.array([_mean(precision[:, :, number, 0]) for number in range(classes)])
    ar = np.array([_mean(recall[:, number, 0, 2]) for number in range(classes)])
    return CocoResult(scores, ap, ar, precision)


def _mean(values: np.ndarray) -> float:
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0


def _of_class(one: Found, there: Truth, number: int) -> tuple[Found, Truth, np.ndarray]:
    """Return detections of a class in order, objects of it, and how much they overlap."""
    mine = np.flatnonzero(one.classes == number)
    mine = mine[np.argsort(-one.scores[mine], kind="stable")[: _LIMITS[-1]]]
    its = there.classes == number
    found, objects = Found(*(each[mine] for each in one)), Truth(*(each[its] for each in there))
    low = np.maximum(found.boxes[:, None, :2], objects.boxes[None, :, :2])
    high = np.minimum(found.boxes[:, None, 2:], objects.boxes[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    own, area = ((b[:, 2:] - b[:, :2]).prod(-1) for b in (found.boxes, objects.boxes))
    union = np.where(objects.ignored[None], own[:, None], own[:, None] + area[None] - shared)
    return found, objects, np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


class _Matched(NamedTuple):
    scores: np.ndarray  # [n]
    right: np.ndarray  # bool [thresholds, n]
    left_out: np.ndarray  # bool [thresholds, n]
    objects: int


def _match(found: Found, truth: Truth, shared: np.ndarray, bounds: tuple[float, float]) -> _Matched:
    low, high = bounds
    aside = truth.ignored | (truth.areas < low) | (truth.areas > high)
    free = np.ones((len(THRESHOLDS), len(aside)), bool)
    shape = len(THRESHOLDS), len(found.scores)
    right, left_out = np.zeros(shape, bool), np.zeros(shape, bool)
    least = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    rows = np.arange(len(THRESHOLDS))
    for place, row in enumerate(shared if len(aside) else ()):
        fits = (free | truth.ignored[None]) & (row[None] >= least)
        counted = fits & ~aside[None]
        fits = np.where(counted.any(axis=1, keepdims=True), counted, fits)
        values = np.where(fits, row[None], -1)
        chosen = len(aside) - 1 - values[:, ::-1].argmax(axis=1)  # of equal ones the last
        taken = fits.any(axis=1)
        free[rows[taken], chosen[taken]] = False
        left_out[:, place] = taken & aside[chosen]
        right[:, place] = taken & ~aside[chosen]
    area = (found.boxes[:, 2:] - found.boxes[:, :2]).prod(-1)
    left_out |= ~right & ((area < low) | (area > high))[None]
    return _Matched(found.scores, right, left_out, int((~aside).sum()))


def _read(matched: list[_Matched], limit: int, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Return precisions at the recalls [thresholds, recalls] and largest recalls [thresholds]."""
    scores = np.concatenate([each.scores[:limit] for each in matched])
    order = np.argsort(-scores, kind="mergesort")
    right = np.concatenate([each.right[:, :limit] for each in matched], axis=1)[:, order]
    left_out = np.concatenate([each.left_out[:, :limit] for each in matched], axis=1)[:, order]
    hits = (right & ~left_out).cumsum(axis=1).astype(float)
    misses = (~right & ~left_out).cumsum(axis=1).astype(float)
    at, reached = np.zeros((len(THRESHOLDS), len(RECALLS))), np.zeros(len(THRESHOLDS))
    for number, (hit, miss) in enumerate(zip(hits, misses, strict=True)):
        if not len(hit):
            continue
        recall = hit / objects
        precision = hit / (hit + miss + np.spacing(1))
        falling = np.maximum.accumulate(precision[::-1])[::-1]
        places = np.searchsorted(recall, RECALLS, side="left")
        inside = places < len(falling)
        at[number, inside] = falling[places[inside]]
        reached[number] = recall[-1]
    return at, reached


def as_coco(
    detections: Sequence[Found], truths: Sequence[Truth], classes: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return objects and detections as COCO's files hold them, for any program that reads these.

    Images and classes are numbered as here, but ids of objects begin at 1. Written by `json.dump`,
    the first is a file of instances and the second one of results.

    Raises:
        InputError: as for `coco_ap`.
    """
    check_images(detections, truths, classes)
    instances = []
    for image, there in enumerate(truths):
        for box, label, ignored, area in zip(*there, strict=True):
            own = {"image_id": image, "category_id": int(label), "bbox": _xywh(box)}
            size = {"area": float(area), "iscrowd": int(ignored)}
            instances.append({"id": len(instances) + 1, **own, **size})
    whole = {
        "info": {},
        "images": [{"id": image} for image in range(len(truths))],
        "categories": [{"id": c, "name": str(c)} for c in range(classes)],
        "annotations": instances,
    }
    results = [
        {"image_id": image, "category_id": int(label), "bbox": _xywh(box), "score": float(score)}
        for image, one in enumerate(detections)
        for box, score, label in zip(*one, strict=True)
    ]
    return whole, results


def _xywh(box: np.ndarray) -> list[float]:
    return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]


def pycocotools_ap(
    detections: Sequence[Found], truths: Sequence[Truth], classes: int
) -> CocoScores:
    """Return the twelve figures as pycocotools computes them; arguments are those of `coco_ap`.

    Without any detection, which it does not read, figures are 0, or -1 where there are no objects.

    Raises:
        InputError: as for `coco_ap`, or pycocotools is not installed.
    """
    with needs("detection"):
        coco_module: Any = importlib.import_module("pycocotools.coco")
        evaluating: Any = importlib.import_module("pycocotools.cocoeval")

    whole, results = as_coco(detections, truths, classes)
    if not results:
        return coco_ap(detections, truths, classes).scores
    with contextlib.redirect_stdout(io.StringIO()):
        coco = coco_module.COCO()
        coco.dataset = whole
        coco.createIndex()
        evaluation = evaluating.COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return CocoScores(*(float(value) for value in evaluation.stats))
