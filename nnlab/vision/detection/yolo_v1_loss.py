r"""The loss of YOLO v1: one object a cell, and squared errors of everything.

An image is divided into S × S cells. A cell predicts the probabilities p of C classes and B boxes,
each with a confidence c and (x, y, √w, √h): its centre from the cell's upper left corner, in cells,
and the roots of its sides, as parts of the image's. Where the centre of an object is in a cell, the
box of the largest IoU with it is responsible (of the smallest distance, if all are 0). With
λ_coord = 5 and λ_noobj = ½,

.. math::
    L = \lambda_{noobj} \sum_{other} c^2 + \sum_{resp.} (\mathrm{IoU} - c)^2
      + \sum_{cells} |p - e_k|^2
      + \lambda_{coord} \sum_{resp.} |(x, y, \sqrt w, \sqrt h) - (x, y, \sqrt w, \sqrt h)^*|^2,

where k is the object's class and the IoU a constant of the gradient. Of several objects in a cell
the first counts.

Reference:
    Redmon et al., You only look once, CVPR 2016, https://arxiv.org/abs/1506.02640, eq. (3);
    darknet (detection_layer.c, with `rescore` and `sqrt`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from numpy.typing import ArrayLike

from nnlab.data.batches import check_shape
from nnlab.errors import InputError
from nnlab.vision.detection.boxes import centers, check_boxes, corners, iou


class YoloV1Loss(NamedTuple):
    """The four parts of the loss, weighted; the loss is their sum.

    Attributes:
        no_object: of the confidences of boxes that are not responsible.
        object: of those that are.
        classes: of the probabilities.
        boxes: of centres and sides.
    """

    no_object: jax.Array
    object: jax.Array
    classes: jax.Array
    boxes: jax.Array


def yolo_v1_loss(
    outputs: jax.Array,
    boxes: ArrayLike,
    classes: ArrayLike,
    mask: ArrayLike,
    *,
    image_shape: tuple[float, float],
    boxes_per_cell: int = 2,
    coord_weight: float = 5.0,
    no_object_weight: float = 0.5,
) -> YoloV1Loss:
    """Return the loss of one image; `jax.vmap` takes several.

    Args:
        outputs: [S, S, C + 5 B]: of each cell the classes, then the confidences, then the boxes.
        boxes: objects (x1, y1, x2, y2) in pixels, [n, 4].
        classes: their numbers, integers [n].
        mask: bool [n], which of them are there.
        image_shape: height and width of the image, in pixels.
        boxes_per_cell: B.
        coord_weight, no_object_weight: λ_coord and λ_noobj.

    Raises:
        InputError: the outputs are too few, or boxes, classes and mask not of the same objects.
    """
    boxes = check_boxes("boxes", boxes, 2)
    n = len(boxes)
    classes, mask = jnp.asarray(classes), jnp.asarray(mask)
    check_shape("classes", classes, (n,))
    check_shape("mask", mask, (n,))
    count = outputs.shape[-1] - 5 * boxes_per_cell
    if outputs.ndim != 3 or count < 1:
        expected = f"expected [S, S, classes + {5 * boxes_per_cell}]"
        raise InputError(f"outputs have shape {list(outputs.shape)}, {expected}.")
    down, across = outputs.shape[:2]
    cells = down * across
    flat = outputs.reshape(cells, -1)
    scores, confidence = flat[:, :count], flat[:, count : count + boxes_per_cell]
    predicted = flat[:, count + boxes_per_cell :].reshape(cells, boxes_per_cell, 4)

    height, width = image_shape
    part = jnp.array([width, height, width, height], boxes.dtype)[None]
    objects = centers(boxes / part)
    grid = jnp.array([across, down], boxes.dtype)
    at = objects[:, :2] * grid[None]
    cell = jnp.clip(jnp.floor(at), 0, grid[None] - 1)
    place = (cell[:, 1] * across + cell[:, 0]).astype(jnp.int32)
    place = jnp.where(mask, place, cells)
    first = jnp.full(cells, n, jnp.int32).at[place].min(jnp.arange(n), mode="drop")
    has = first < n
    owner = jnp.where(has, first, 0) if n else first * 0
    target = jnp.concatenate([at - cell, jnp.sqrt(jnp.maximum(objects[:, 2:], 0))], axis=-1)
    target = target[owner] if n else jnp.zeros((cells, 4), boxes.dtype)
    number = classes[owner] if n else owner

    def as_box(codes):
        return jnp.concatenate(
            [codes[..., :2] / grid.reshape((1,) * (codes.ndim - 1) + (2,)), codes[..., 2:] ** 2],
            axis=-1,
        )

    found, wanted = lax.stop_gradient(as_box(predicted)), as_box(target)[:, None]
    overlap = iou(corners(found), corners(wanted))
    distance = ((found - wanted) ** 2).sum(-1)
    chosen = jnp.where((overlap > 0).any(1), overlap.argmax(1), distance.argmin(1))
    responsible = has[:, None] & (jnp.arange(boxes_per_cell)[None] == chosen[:, None])

    def over(where, errors):
        return jnp.where(where, errors, 0).sum()

    hot = jax.nn.one_hot(number, count, dtype=flat.dtype)
    apart = ((predicted - target[:, None]) ** 2).sum(-1)
    return YoloV1Loss(
        no_object_weight * over(~responsible, confidence**2),
        over(responsible, (overlap - confidence) ** 2),
        over(has, ((scores - hot) ** 2).sum(-1)),
        coord_weight * over(responsible, apart),
    )
