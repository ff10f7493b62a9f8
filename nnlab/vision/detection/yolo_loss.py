r"""Boxes and losses of YOLO v2 and v3: anchors on a grid, one of them responsible for an object.

Of an anchor with the sides (p_w, p_h) in the cell (i, j) of a grid W × H a network predicts t and
means, as parts of the image,

.. math::
    b = \left(\frac{\sigma(t_x) + i}{W},\; \frac{\sigma(t_y) + j}{H},\;
              p_w e^{t_w},\; p_h e^{t_h}\right),                               (1)

an objectness o, and a score for each class. The anchor that is most like an object in width and
height is responsible for it, in the cell of the object's centre; in v3 that is one of the anchors
of all grids. Of objects that share cell and anchor the last one counts; in v3 the cell learns the
classes of all. With the object's width and height w, h, both as parts of the image,

==========  ==============================================  ==================================
part        v3                                              v2
==========  ==============================================  ==================================
x, y        (2 − wh) · BCE(t, target)                       the same
w, h        (2 − wh) · ½ (t − target)²                      the same
objectness  BCE(o, 1) if responsible; else BCE(o, 0)        5 · BCE(o, IoU); else 1 · BCE(o, 0)
            unless IoU with any object > 0.7                unless > 0.6
classes     BCE of each, if responsible                     softmax cross-entropy
==========  ==============================================  ==================================

BCE is the binary cross-entropy of logits. The gradients are those that darknet passes on. While it
has seen fewer than 12,800 images, v2 also pulls every other box to its anchor, with the weight
0.01 (`warm_up`). In deciding what is ignored, exponents are limited as in `decode`.

References:
    Redmon and Farhadi, YOLO9000, CVPR 2017, https://arxiv.org/abs/1612.08242; YOLOv3, 2018,
    https://arxiv.org/abs/1804.02767; darknet (region_layer.c, yolo_layer.c at f6afaab).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from numpy.typing import ArrayLike

from nnlab.data.batches import check_shape
from nnlab.errors import InputError
from nnlab.vision.detection.boxes import centers, check_boxes, corners, iou
from nnlab.vision.detection.coding import LIMIT

_LEAST = 1e-3  # of the image; darknet leaves out narrower objects

bce = optax.sigmoid_binary_cross_entropy


class YoloLoss(NamedTuple):
    """The parts of the loss of an image; the loss is their sum.

    Attributes:
        boxes: of centres and sides.
        objectness: whether there is an object.
        classes: which one.
        warm_up: of v2, what pulls boxes to their anchors; otherwise 0.
    """

    boxes: jax.Array
    objectness: jax.Array
    classes: jax.Array
    warm_up: jax.Array


class YoloTargets(NamedTuple):
    """What the anchors of one grid [H, W, anchors] learn.

    Attributes:
        responsible: bool [H, W, anchors].
        codes: [..., 4], the targets of σ(t_x) and σ(t_y), t_w and t_h.
        weight: [H, W, anchors], 2 − wh of the object.
        owner: int32 [H, W, anchors], its number, or 0.
        classes: [..., classes], 1 for the classes of all objects there.
    """

    responsible: jax.Array
    codes: jax.Array
    weight: jax.Array
    owner: jax.Array
    classes: jax.Array


def yolo_boxes(
    outputs: jax.Array, anchors: ArrayLike, image_shape: tuple[float, float]
) -> jax.Array:
    """Return the boxes (1) that a grid predicts, in pixels.

    Args:
        outputs: [..., H, W, anchors, 4 or more], t_x, t_y, t_w, t_h first.
        anchors: width and height in pixels, [anchors, 2].
        image_shape: height and width of the image, in pixels.

    Returns:
        (x1, y1, x2, y2), [..., H, W, anchors, 4].
    """
    size = jnp.array([image_shape[1], image_shape[0]] * 2, outputs.dtype)
    return corners(_parts(outputs, anchors, image_shape)) * _broad(size, outputs.ndim)


def yolo_targets(
    boxes: ArrayLike,
    classes: ArrayLike,
    mask: ArrayLike,
    grid: tuple[int, int],
    anchors: ArrayLike,
    group: Sequence[int] | None = None,
    *,
    image_shape: tuple[float, float],
    class_count: int,
) -> YoloTargets:
    """Return what the anchors of a grid learn of the objects of one image.

    Args:
        boxes: objects (x1, y1, x2, y2) in pixels, [n, 4].
        classes: their numbers, integers [n].
        mask: bool [n], which of them are there; those narrower than a thousandth of the image
            count as not there.
        grid: height H and width W.
        anchors: those of all grids, width and height in pixels, [all, 2].
        group: numbers of those of this grid; by default all.
        image_shape: height and width of the image, in pixels.
        class_count: number of classes.

    Raises:
        InputError: boxes, classes and mask are not of the same objects.
    """
    boxes = check_boxes("boxes", boxes, 2)
    n, (down, across) = len(boxes), grid
    classes, mask = jnp.asarray(classes), jnp.asarray(mask)
    check_shape("classes", classes, (n,))
    check_shape("mask", mask, (n,))
    anchors = jnp.asarray(anchors, boxes.dtype)
    group = tuple(range(len(anchors))) if group is None else tuple(group)
    if not n:  # one that is not there, for there must be something to take
        boxes, classes = jnp.zeros((1, 4), boxes.dtype), jnp.zeros(1, jnp.int32)
        mask, n = jnp.zeros(1, bool), 1
    objects = centers(boxes / _size(image_shape, boxes)[None])
    sides = objects[:, 2:]
    mask = mask & (sides >= _LEAST).all(axis=-1)
    sides = jnp.maximum(sides, _LEAST)
    own = anchors / _size(image_shape, boxes)[None, :2]
    shared = jnp.minimum(sides[:, None], own[None]).prod(-1)
    alike = shared / (sides.prod(-1)[:, None] + own.prod(-1)[None] - shared)
    best = alike.argmax(axis=1)

    cells = jnp.array([across, down], boxes.dtype)[None]
    at = objects[:, :2] * cells
    cell = jnp.clip(jnp.floor(at), 0, cells - 1)
    slot = (best[:, None] == jnp.array(group)[None]).argmax(axis=1)
    here = mask & (best[:, None] == jnp.array(group)[None]).any(axis=1)
    total = down * across * len(group)
    place = (cell[:, 1] * across + cell[:, 0]).astype(jnp.int32) * len(group) + slot
    place = jnp.where(here, place, total)
    last = jnp.full(total, -1, jnp.int32).at[place].max(jnp.arange(n), mode="drop")
    owner = jnp.maximum(last, 0)
    hot = jnp.zeros((total, class_count), boxes.dtype)
    hot = hot.at[place, classes].max(1, mode="drop")
    codes = jnp.concatenate([at - cell, jnp.log(sides / own[best])], axis=-1)
    shape = (down, across, len(group))
    return YoloTargets(
        (last >= 0).reshape(shape),
        codes[owner].reshape(*shape, 4),
        (2 - sides.prod(-1))[owner].reshape(shape),
        owner.reshape(shape),
        hot.reshape(*shape, class_count),
    )


def yolo_v3_loss(
    outputs: Sequence[jax.Array],
    boxes: ArrayLike,
    classes: ArrayLike,
    mask: ArrayLike,
    *,
    anchors: ArrayLike,
    groups: Sequence[Sequence[int]],
    image_shape: tuple[float, float],
    ignore: float = 0.7,
) -> YoloLoss:
    """Return the loss of v3 of one image; `jax.vmap` takes several.

    Args:
        outputs: of each grid, [H, W, anchors, 5 + classes]: t_x, t_y, t_w, t_h, o and the classes.
        boxes, classes, mask, image_shape: as for `yolo_targets`.
        anchors: those of all grids, width and height in pixels, [all, 2].
        groups: numbers of the anchors of each grid.
        ignore: the IoU with an object above which a box that is not responsible learns nothing;
            0.7 for COCO, 0.5 for VOC.

    Raises:
        InputError: as for `yolo_targets`, or the grids are not as many as the groups, or of other
            numbers of anchors.
    """
    anchors = jnp.asarray(anchors)
    if [each.shape[2:3] for each in outputs] != [(len(group),) for group in groups]:
        given = f"{[list(each.shape) for each in outputs]} for groups of {list(map(len, groups))}"
        raise InputError(f"outputs have the shapes {given}, expected [H, W, anchors, 5 + classes].")
    parts = []
    for grid, group in zip(outputs, groups, strict=True):
        targets = yolo_targets(
            *(boxes, classes, mask, _cells(grid), anchors, group),
            image_shape=image_shape,
            class_count=grid.shape[-1] - 5,
        )
        own, logits = targets.responsible, grid[..., 4]
        overlap = _largest_iou(grid, anchors[jnp.array(group)], boxes, mask, image_shape)
        learns = own | (overlap <= ignore)
        objectness = jnp.where(learns, bce(logits, own.astype(logits.dtype)), 0).sum()
        labels = jnp.where(own[..., None], bce(grid[..., 5:], targets.classes), 0).sum()
        coordinates = jnp.where(own, targets.weight * _apart(grid, targets.codes), 0).sum()
        parts.append((coordinates, objectness, labels))
    totals = [jnp.stack(each).sum() for each in zip(*parts, strict=True)]
    return YoloLoss(totals[0], totals[1], totals[2], jnp.zeros_like(totals[0]))


def yolo_v2_loss(
    outputs: jax.Array,
    boxes: ArrayLike,
    classes: ArrayLike,
    mask: ArrayLike,
    *,
    anchors: ArrayLike,
    image_shape: tuple[float, float],
    ignore: float = 0.6,
    object_weight: float = 5.0,
    warm_up: float | jax.Array = 0.0,
) -> YoloLoss:
    """Return the loss of v2 of one image; `jax.vmap` takes several.

    Args:
        outputs: [H, W, anchors, 5 + classes]: t_x, t_y, t_w, t_h, o and the classes.
        boxes, classes, mask, image_shape: as for `yolo_targets`.
        anchors: width and height in pixels, [anchors, 2].
        ignore: as for `yolo_v3_loss`.
        object_weight: of the objectness of responsible boxes.
        warm_up: weight of what pulls all other boxes to their anchors; 0.01 for darknet's first
            12,800 images, then 0.

    Raises:
        InputError: as for `yolo_targets`, or the grid has another number of anchors.
    """
    anchors = jnp.asarray(anchors)
    if outputs.ndim != 4 or outputs.shape[2] != len(anchors):
        expected = f"expected [H, W, {len(anchors)}, 5 + classes]"
        raise InputError(f"outputs have shape {list(outputs.shape)}, {expected}.")
    targets = yolo_targets(
        *(boxes, classes, mask, _cells(outputs), anchors),
        image_shape=image_shape,
        class_count=outputs.shape[-1] - 5,
    )
    own, logits = targets.responsible, outputs[..., 4]
    boxes, classes = check_boxes("boxes", boxes, 2), jnp.asarray(classes)
    if not len(boxes):
        boxes, classes = jnp.zeros((1, 4), boxes.dtype), jnp.zeros(1, jnp.int32)
        mask = jnp.zeros(1, bool)
    overlap = _largest_iou(outputs, anchors, boxes, mask, image_shape)
    predicted = lax.stop_gradient(yolo_boxes(limited(outputs), anchors, image_shape))
    confidence = iou(predicted, boxes[targets.owner])
    found = object_weight * bce(logits, confidence)
    objectness = jnp.where(own, found, jnp.where(overlap <= ignore, bce(logits, own * 0.0), 0))
    label = classes[targets.owner]
    nats = optax.softmax_cross_entropy_with_integer_labels(outputs[..., 5:], label)
    middle = jnp.zeros_like(targets.codes).at[..., :2].set(0.5)
    pulled = jnp.where(own, 0, _apart(outputs, middle)).sum()
    return YoloLoss(
        jnp.where(own, targets.weight * _apart(outputs, targets.codes), 0).sum(),
        objectness.sum(),
        jnp.where(own, nats, 0).sum(),
        warm_up * pulled,
    )


def _apart(outputs: jax.Array, codes: jax.Array) -> jax.Array:
    """Return the errors of centres and sides, without weights."""
    centre = bce(outputs[..., :2], codes[..., :2]).sum(-1)
    return centre + ((outputs[..., 2:4] - codes[..., 2:]) ** 2).sum(-1) / 2


def _largest_iou(
    outputs: jax.Array,
    anchors: jax.Array,
    boxes: ArrayLike,
    mask: ArrayLike,
    image_shape: tuple[float, float],
) -> jax.Array:
    """Return the largest IoU of each predicted box with an object, [H, W, anchors]."""
    boxes = check_boxes("boxes", boxes, 2)
    predicted = lax.stop_gradient(yolo_boxes(limited(outputs), anchors, image_shape))
    overlaps = iou(predicted[..., None, :], boxes[None, None, None])
    there = jnp.asarray(mask)[None, None, None]
    return jnp.where(there, overlaps, 0).max(axis=-1, initial=0)


def limited(outputs: jax.Array) -> jax.Array:
    """Return outputs [..., 4 or more] with t_w and t_h limited as in `decode`."""
    return jnp.asarray(outputs).at[..., 2:4].min(LIMIT)


def _parts(outputs: jax.Array, anchors: ArrayLike, image_shape: tuple[float, float]) -> jax.Array:
    """Return (1), centres and sides as parts of the image."""
    down, across, count = outputs.shape[-4:-1]
    anchors = jnp.asarray(anchors, outputs.dtype)
    if anchors.shape != (count, 2):
        raise InputError(f"anchors have shape {list(anchors.shape)}, expected [{count}, 2].")
    row, column = jnp.mgrid[:down, :across].astype(outputs.dtype)
    cell = jnp.stack([column, row], axis=-1)[:, :, None]
    cells = _broad(jnp.array([across, down], outputs.dtype), outputs.ndim)
    centre = (jax.nn.sigmoid(outputs[..., :2]) + _broad_cells(cell, outputs.ndim)) / cells
    own = anchors / _size(image_shape, outputs)[None, :2]
    sides = jnp.exp(outputs[..., 2:4]) * own.reshape((1,) * (outputs.ndim - 2) + own.shape)
    return jnp.concatenate([centre, sides], axis=-1)


def _cells(outputs: jax.Array) -> tuple[int, int]:
    return outputs.shape[0], outputs.shape[1]


def _size(image_shape: tuple[float, float], like: jax.Array) -> jax.Array:
    return jnp.array([image_shape[1], image_shape[0]] * 2, like.dtype)


def _broad(values: jax.Array, axes: int) -> jax.Array:
    return values.reshape((1,) * (axes - 1) + values.shape)


def _broad_cells(cell: jax.Array, axes: int) -> jax.Array:
    return cell.reshape((1,) * (axes - cell.ndim) + cell.shape)
