r"""Boxes as a network predicts them: distances from an anchor or a point, and back.

With the centre (x, y), width w and height h of a box, those of its anchor with the index a, and
four weights,

.. math::
    t = \left(w_x \frac{x - x_a}{w_a},\; w_y \frac{y - y_a}{h_a},\;
              w_w \ln \frac{w}{w_a},\; w_h \ln \frac{h}{h_a}\right).           (1)

The weights (10, 10, 5, 5) of the second stage of a detector are one over its standard deviations.
Without anchors, a point (x, y) has the distances

.. math:: d = (x - x_1,\; y - y_1,\; x_2 - x,\; y_2 - y)                       (2)

to the left, top, right and bottom of its box.

References:
    Girshick et al., R-CNN, CVPR 2014, https://arxiv.org/abs/1311.2524, appendix C: (1). Faster
    R-CNN's code divides by standard deviations of 0.1, 0.1, 0.2, 0.2; torchvision limits the
    exponent.
    Tian et al., FCOS, ICCV 2019, https://arxiv.org/abs/1904.01355, eq. (1): (2).
"""

import math

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from nnlab.vision.detection.boxes import centers, check_boxes, corners

WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the boxes of the second stage
LIMIT = math.log(1000 / 16)  # of the logarithms of sides; a box from 16 to 1,000 pixels
_LEAST = 1e-6  # pixels; keeps what a mask hides finite

Weights = tuple[float, float, float, float]


def encode(boxes: ArrayLike, anchors: ArrayLike, weights: Weights = (1, 1, 1, 1)) -> jax.Array:
    """Return (1), how boxes [..., 4] differ from their anchors [..., 4].

    A side of less than a millionth of a pixel counts as that, so that the boxes of padding, which a
    mask leaves out of a loss, do not make it NaN.

    Raises:
        InputError: these are no boxes.
    """
    box, anchor = centers(boxes), centers(anchors)
    size, base = (jnp.maximum(each[..., 2:], _LEAST) for each in (box, anchor))
    moved = (box[..., :2] - anchor[..., :2]) / base
    code = jnp.concatenate([moved, jnp.log(size / base)], axis=-1)
    return code * jnp.asarray(weights, code.dtype).reshape((1,) * (code.ndim - 1) + (4,))


def decode(
    codes: ArrayLike,
    anchors: ArrayLike,
    weights: Weights = (1, 1, 1, 1),
    *,
    limit: float = LIMIT,
) -> jax.Array:
    """Return the boxes [..., 4] that codes [..., 4] of anchors [..., 4] mean.

    Args:
        codes: (1), as a network predicts them.
        anchors: boxes.
        weights: those of `encode`.
        limit: the largest ln(w / w_a) and ln(h / h_a); larger ones count as this.

    Raises:
        InputError: these are no boxes.
    """
    codes, anchor = check_boxes("codes", codes), centers(anchors)
    codes = codes / jnp.asarray(weights, codes.dtype).reshape((1,) * (codes.ndim - 1) + (4,))
    center = anchor[..., :2] + codes[..., :2] * anchor[..., 2:]
    size = jnp.exp(jnp.minimum(codes[..., 2:], limit)) * anchor[..., 2:]
    return corners(jnp.concatenate([center, size], axis=-1))


def distances(points: ArrayLike, boxes: ArrayLike) -> jax.Array:
    """Return (2), how far points [..., 2] are from the sides of boxes [..., 4]; negative outside.

    Raises:
        InputError: these are no boxes.
    """
    points, boxes = jnp.asarray(points), check_boxes("boxes", boxes)
    return jnp.concatenate([points - boxes[..., :2], boxes[..., 2:] - points], axis=-1)


def boxes_at(points: ArrayLike, distances: ArrayLike) -> jax.Array:
    """Return the boxes [..., 4] whose sides have these distances (2) from points [..., 2].

    Raises:
        InputError: the distances are not four of each point.
    """
    points, sides = jnp.asarray(points), check_boxes("distances", distances)
    return jnp.concatenate([points - sides[..., :2], points + sides[..., 2:]], axis=-1)
