"""Detectors: what the outputs of a network mean, as pure functions of a batch of them.

A network maps images to outputs, any tree of arrays. A detector knows what they say: `loss`
compares them with the objects of each image, `detect` makes boxes of them. Training is that of any
network, with labels that are `nnlab.vision.datasets.labelled.Boxes`:

    step = train_step(
        model, optimizer, total_loss(detector), metrics=loss_parts(detector), mix=flipped
    )

and `average_precision` is that of a compiled `images -> Detections`.
"""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from nnlab.errors import check_count
from nnlab.vision.datasets.labelled import Boxes, BoxRecords
from nnlab.vision.detection.boxes import check_boxes
from nnlab.vision.detection.found import Found, Truth, found, truth
from nnlab.vision.detection.suppression import nms
from nnlab.vision.detection.voc_ap import voc_ap


class Detections(NamedTuple):
    """What is found in each of n images, at most k boxes, the highest score first.

    Attributes:
        boxes: (x1, y1, x2, y2) in pixels, [n, k, 4].
        scores: [n, k].
        classes: int32 [n, k].
        mask: bool [n, k], which entries are detections; the others are padding.
    """

    boxes: jax.Array
    scores: jax.Array
    classes: jax.Array
    mask: jax.Array


class Detector(Protocol):
    """What the outputs of a network mean."""

    def loss(self, outputs: Any, boxes: Any, classes: Any, mask: Any) -> Any:
        """Return the parts of the loss of each image, a `NamedTuple` of arrays [n].

        Args:
            outputs: of the network, for n images.
            boxes: objects (x1, y1, x2, y2) in pixels, [n, most, 4].
            classes: their numbers, integers [n, most].
            mask: bool [n, most], which of them are there.
        """
        ...

    def detect(self, outputs: Any) -> Detections:
        """Return what the outputs of the network say is in its n images."""
        ...


def total_loss(detector: Detector) -> Callable[[Any, Boxes], jax.Array]:
    """Return `loss(outputs, objects)`, the mean over images of the sum of the parts."""

    def loss(outputs: Any, objects: Boxes) -> jax.Array:
        parts = detector.loss(outputs, objects.boxes, objects.classes, objects.mask)
        return jnp.stack(list(parts)).sum(axis=0).mean()

    return loss


def loss_parts(detector: Detector) -> Callable[[Any, Boxes], dict[str, jax.Array]]:
    """Return `metrics(outputs, objects)`, the mean over images of each part by its name."""

    def metrics(outputs: Any, objects: Boxes) -> dict[str, jax.Array]:
        parts = detector.loss(outputs, objects.boxes, objects.classes, objects.mask)
        return {f"{name}_loss": each.mean() for name, each in parts._asdict().items()}

    return metrics


def best_boxes(
    boxes: ArrayLike,
    scores: ArrayLike,
    classes: ArrayLike,
    *,
    least_score: float = 0.05,
    threshold: float = 0.5,
    candidates: int = 1000,
    count: int = 100,
) -> Detections:
    """Choose the detections of one image; `jax.vmap` takes several.

    Args:
        boxes: candidates (x1, y1, x2, y2) in pixels, [m, 4].
        scores: [m].
        classes: integers [m]; boxes of different classes do not suppress each other.
        least_score: a candidate needs a score above this.
        threshold: the largest IoU of two boxes of a class that are kept.
        candidates: how many of the highest scores go into `nms`, at most.
        count: how many detections to return, at most; it is the k of the result.

    Returns:
        Detections without the axis of images: boxes [k, 4], …

    Raises:
        InputError: as for `nms`.
    """
    boxes, scores = check_boxes("boxes", boxes, 2), jnp.asarray(scores)
    check_count("candidates", candidates)
    if candidates < len(boxes):
        scores, order = jax.lax.top_k(scores, candidates)
        boxes, classes = boxes[order], jnp.asarray(classes)[order]
    classes = jnp.asarray(classes, jnp.int32)
    kept = nms(boxes, scores, threshold, classes=classes, mask=scores > least_score, count=count)
    boxes = jnp.where(kept.mask[:, None], boxes[kept.indices], 0)
    scores, classes = (jnp.where(kept.mask, a[kept.indices], 0) for a in (scores, classes))
    return Detections(boxes, scores, classes, kept.mask)


def found_in(detections: Detections) -> list[Found]:
    """Return the detections of each image as the measures take them."""
    arrays = [np.asarray(each) for each in detections]
    return [found(*(each[image] for each in arrays)) for image in range(len(arrays[0]))]


def truths_of(objects: Boxes) -> list[Truth]:
    """Return the objects of each image as the measures take them; difficult ones are ignored."""
    return [
        truth(boxes, classes, mask, ignored=difficult)
        for boxes, classes, mask, difficult in zip(*map(np.asarray, objects), strict=True)
    ]


def average_precision(
    predict: Callable[[Any], Detections],
    examples: BoxRecords | tuple[Any, Boxes],
    classes: int,
    *,
    batch_size: int = 8,
    measure: Callable[..., Any] = voc_ap,
) -> Any:
    """Return what a measure says of a detector over a whole set, in batches.

    Args:
        predict: compiled, from images [batch_size, …], as the set has them, to detections. The last
            batch is filled with its first image, so that one program does.
        examples: records on disk, or images [n, …] and their objects.
        classes: number of classes.
        batch_size: images at a time.
        measure: `measure(detections, objects, classes)`, `voc_ap` or `coco_ap`, or a partial.

    Returns:
        What the measure returns: `AveragePrecision` of `voc_ap`.

    Raises:
        InputError: as for the measure; or the batch size is below 1.
    """
    check_count("batch_size", batch_size)
    detections, objects = [], []
    number = len(examples) if isinstance(examples, BoxRecords) else len(examples[1].mask)
    for start in range(0, number, batch_size):
        chosen = np.arange(start, min(start + batch_size, number))
        filled = np.concatenate([chosen, np.full(batch_size - len(chosen), start)])
        if isinstance(examples, BoxRecords):
            images, some = examples.gather(filled)
        else:
            images, some = jax.tree.map(operator.itemgetter(filled), examples)
        detections += found_in(predict(images))[: len(chosen)]
        objects += truths_of(some)[: len(chosen)]
    return measure(detections, objects, classes)
