"""What the outputs of YOLO v1, v2 and v3 mean: their losses, and boxes with scores.

The score of a box and a class is

==  =============================================================
v1  the cell's probability of the class, times the box's confidence
v2  σ(o) · softmax over the classes
v3  σ(o) · σ of each class, so that a box may be of several
==  =============================================================

Boxes are cut off at the image's border. Thresholds are those of darknet's evaluation: scores above
0.005, and of two boxes of a class with an IoU above 0.45 the one with the higher score.

References:
    darknet (get_detection_detections, get_region_detections and get_yolo_detections at f6afaab).
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from nnlab.errors import InputError
from nnlab.vision.detection.anchors import YOLO_V2_VOC, YOLO_V3, YOLO_V3_TINY
from nnlab.vision.detection.boxes import clip, corners
from nnlab.vision.detection.detectors import Detections, best_boxes
from nnlab.vision.detection.yolo_loss import (
    YoloLoss,
    limited,
    yolo_boxes,
    yolo_v2_loss,
    yolo_v3_loss,
)
from nnlab.vision.detection.yolo_v1_loss import YoloV1Loss, yolo_v1_loss

Anchors = tuple[tuple[float, float], ...]
GROUPS = ((6, 7, 8), (3, 4, 5), (0, 1, 2))  # of the grids of v3
TINY_GROUPS = GROUPS[1:]


@dataclasses.dataclass(frozen=True)
class YoloV1Detector:
    """What v1's cells [n, S, S, classes + 5 boxes] mean.

    Attributes:
        image_shape: height and width of the images, in pixels.
        boxes: of a cell.
        least_score, threshold, count: see `best_boxes`.
    """

    image_shape: tuple[int, int]
    boxes: int = 3
    least_score: float = 0.005
    threshold: float = 0.45
    count: int = 100

    def loss(self, outputs: Any, boxes: Any, classes: Any, mask: Any) -> YoloV1Loss:
        """Return the parts of `yolo_v1_loss` of each image."""
        of_image = functools.partial(
            yolo_v1_loss, image_shape=self.image_shape, boxes_per_cell=self.boxes
        )
        return jax.vmap(of_image)(outputs, boxes, classes, mask)

    def detect(self, outputs: Any) -> Detections:
        """Return the detections of each image."""
        n, down, across, width = outputs.shape
        classes = width - 5 * self.boxes
        probabilities, confidences, codes = jnp.split(
            outputs, [classes, classes + self.boxes], axis=-1
        )
        scores = probabilities[..., None, :] * confidences[..., None]
        codes = codes.reshape(n, down, across, self.boxes, 4)
        row, column = jnp.mgrid[:down, :across].astype(codes.dtype)
        cell = jnp.stack([column, row], axis=-1)[None, :, :, None]
        cells = jnp.array([across, down], codes.dtype).reshape(1, 1, 1, 1, 2)
        parts = jnp.concatenate([(codes[..., :2] + cell) / cells, codes[..., 2:] ** 2], axis=-1)
        found = corners(parts) * _sides(self.image_shape, codes.ndim)
        return _best(self, found.reshape(n, -1, 4), scores.reshape(n, -1, classes))


@dataclasses.dataclass(frozen=True)
class YoloV2Detector:
    """What v2's outputs [n, H, W, anchors, 5 + classes] mean.

    Attributes:
        image_shape: height and width of the images, in pixels.
        anchors: width and height of each, in pixels of these images.
        ignore, warm_up: of `yolo_v2_loss`.
        least_score, threshold, count: see `best_boxes`.
    """

    image_shape: tuple[int, int]
    anchors: Anchors = tuple((32 * width, 32 * height) for width, height in YOLO_V2_VOC)
    ignore: float = 0.6
    warm_up: float = 0.0
    least_score: float = 0.005
    threshold: float = 0.45
    count: int = 100

    def loss(self, outputs: Any, boxes: Any, classes: Any, mask: Any) -> YoloLoss:
        """Return the parts of `yolo_v2_loss` of each image."""
        of_image = functools.partial(
            yolo_v2_loss,
            anchors=jnp.array(self.anchors),
            image_shape=self.image_shape,
            ignore=self.ignore,
            warm_up=self.warm_up,
        )
        return jax.vmap(of_image)(outputs, boxes, classes, mask)

    def detect(self, outputs: Any) -> Detections:
        """Return the detections of each image."""
        found = yolo_boxes(limited(outputs), jnp.array(self.anchors), self.image_shape)
        scores = jax.nn.sigmoid(outputs[..., 4:5]) * jax.nn.softmax(outputs[..., 5:])
        n, classes = len(outputs), scores.shape[-1]
        return _best(self, found.reshape(n, -1, 4), scores.reshape(n, -1, classes))


@dataclasses.dataclass(frozen=True)
class YoloV3Detector:
    """What v3's grids [n, H, W, anchors, 5 + classes] mean, several or a single one.

    Attributes:
        image_shape: height and width of the images, in pixels.
        anchors: width and height of those of all grids, in pixels of these images.
        groups: numbers of the anchors of each grid.
        ignore: of `yolo_v3_loss`.
        least_score, threshold, count: see `best_boxes`.
    """

    image_shape: tuple[int, int]
    anchors: Anchors = YOLO_V3
    groups: tuple[tuple[int, ...], ...] = GROUPS
    ignore: float = 0.7
    least_score: float = 0.005
    threshold: float = 0.45
    count: int = 100

    def loss(self, outputs: Any, boxes: Any, classes: Any, mask: Any) -> YoloLoss:
        """Return the parts of `yolo_v3_loss` of each image."""
        of_image = functools.partial(
            yolo_v3_loss,
            anchors=jnp.array(self.anchors),
            groups=self.groups,
            image_shape=self.image_shape,
            ignore=self.ignore,
        )
        return jax.vmap(of_image)(self._grids(outputs), boxes, classes, mask)

    def detect(self, outputs: Any) -> Detections:
        """Return the detections of each image."""
        found, scores = [], []
        for grid, group in zip(self._grids(outputs), self.groups, strict=True):
            own = jnp.array([self.anchors[number] for number in group])
            boxes = yolo_boxes(limited(grid), own, self.image_shape)
            likely = jax.nn.sigmoid(grid[..., 4:5]) * jax.nn.sigmoid(grid[..., 5:])
            found.append(boxes.reshape(len(grid), -1, 4))
            scores.append(likely.reshape(len(grid), -1, likely.shape[-1]))
        return _best(self, jnp.concatenate(found, 1), jnp.concatenate(scores, 1))

    def _grids(self, outputs: Any) -> tuple[jax.Array, ...]:
        grids = tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)
        if len(grids) != len(self.groups):
            raise InputError(
                f"there are {len(grids)} grids for {len(self.groups)} groups of anchors, expected "
                "one a group."
            )
        return grids


yolo_v3_tiny_detector = functools.partial(YoloV3Detector, anchors=YOLO_V3_TINY, groups=TINY_GROUPS)


def _best(
    detector: YoloV1Detector | YoloV2Detector | YoloV3Detector, boxes: jax.Array, scores: jax.Array
) -> Detections:
    """Choose from boxes [n, m, 4] and scores [n, m, classes]: every box with every class."""
    choose = functools.partial(
        best_boxes,
        least_score=detector.least_score,
        threshold=detector.threshold,
        count=detector.count,
    )
    (n, m, classes), boxes = scores.shape, clip(boxes, *detector.image_shape)
    labels = jnp.tile(jnp.arange(classes), m)
    return jax.vmap(choose, in_axes=(0, 0, None))(
        boxes.repeat(classes, axis=1), scores.reshape(n, -1), labels
    )


def _sides(image_shape: tuple[int, int], axes: int) -> jax.Array:
    return jnp.array([image_shape[1], image_shape[0]] * 2).reshape((1,) * (axes - 1) + (4,))
