r"""Losses of boxes and of their scores, one number each; a detector masks and adds them up.

.. math::
    \mathrm{smooth}_{L1}(x; \beta) &= \begin{cases}
        x^2 / 2\beta & |x| < \beta \\ |x| - \beta/2 & \text{otherwise} \end{cases} (1) \\
    \text{log-IoU} &= -\ln \frac{I + 1}{U + 1},                                (2) \\
    \text{centre-ness} &= \sqrt{\frac{\min(l, r)}{\max(l, r)} \cdot
        \frac{\min(t, b)}{\max(t, b)}}.                                        (3)

The focal loss of logits is `optax.sigmoid_focal_loss` with `alpha=0.25, gamma=2`; the last layer's
bias begins at `FOCAL_BIAS`, a probability of 1 %.

References:
    Girshick, Fast R-CNN, ICCV 2015, https://arxiv.org/abs/1504.08083, eq. (3): (1) with β = 1.
    Yu et al., UnitBox, ACM MM 2016, https://arxiv.org/abs/1608.01471, and FCOS's code: (2).
    Tian et al., FCOS, ICCV 2019, https://arxiv.org/abs/1904.01355, eq. (3): (3).
    Lin et al., RetinaNet, ICCV 2017, https://arxiv.org/abs/1708.02002, sections 3.2 and 4.1.
"""

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import optax
from numpy.typing import ArrayLike

from nnlab.errors import InputError
from nnlab.vision.detection.boxes import check_boxes, ciou, diou, giou, iou

FOCAL_BIAS = -math.log(99)
BoxLoss = Literal["iou", "log_iou", "giou", "diou", "ciou"]


def smooth_l1(x: ArrayLike, beta: float = 1.0) -> jax.Array:
    """Return (1) of every number x; β = 1/9 in torchvision's detectors, and 0 is |x|.

    Raises:
        InputError: β is negative.
    """
    if beta < 0:
        raise InputError(f"beta is {beta}, expected at least 0.")
    x = jnp.asarray(x)
    return jnp.abs(x) if beta == 0 else optax.huber_loss(x, delta=beta) / beta


def box_loss(predicted: ArrayLike, boxes: ArrayLike, kind: BoxLoss = "giou") -> jax.Array:
    """Return how far predicted boxes [..., 4] are from those to be found, [...].

    Args:
        predicted, boxes: (x1, y1, x2, y2).
        kind: "log_iou" is (2); the others are 1 less the measure of that name in
            `nnlab.vision.detection.boxes`.

    Raises:
        InputError: these are no boxes, or there is no such kind.
    """
    if kind == "log_iou":
        return _log_iou(check_boxes("boxes", predicted), check_boxes("boxes", boxes))
    measures = {"iou": iou, "giou": giou, "diou": diou, "ciou": ciou}
    if kind not in measures:
        raise InputError(f"kind is {kind!r}, expected one of {', '.join(get_args(BoxLoss))}.")
    return 1 - measures[kind](predicted, boxes)


def _log_iou(a: jax.Array, b: jax.Array) -> jax.Array:
    low, high = jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])
    shared = jnp.prod(jnp.maximum(high - low, 0), axis=-1)
    areas = [jnp.prod(each[..., 2:] - each[..., :2], axis=-1) for each in (a, b)]
    return -jnp.log((shared + 1) / (areas[0] + areas[1] - shared + 1))  # (2)


def centerness(distances: ArrayLike) -> jax.Array:
    """Return (3) of a point's distances [..., 4] to left, top, right, bottom; 0 outside."""
    distances = check_boxes("distances", distances)
    near = jnp.minimum(distances[..., :2], distances[..., 2:])
    far = jnp.maximum(distances[..., :2], distances[..., 2:])
    inside = (near > 0).all(axis=-1)
    ratio = jnp.where(inside, jnp.prod(near / jnp.where(far > 0, far, 1), axis=-1), 1)
    return jnp.where(inside, jnp.sqrt(ratio), 0)
