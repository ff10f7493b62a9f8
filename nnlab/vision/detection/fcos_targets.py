"""What every point of a feature pyramid learns in FCOS: an object's number, or background.

A point takes an object if it lies within it and not far from its centre, and if the largest of its
distances to the sides suits its level; of several, the smallest. Two dialects are in use:

=============  ==============================  =============================
               paper and its code              torchvision
=============  ==============================  =============================
points         ⌊s/2⌋ + i · s                   i · s
range          closed, low ≤ d ≤ high          open, low < d < high
near centre    |centre box| cut to the object  max(|x − x_c|, |y − y_c|) < r s
=============  ==============================  =============================

with the stride s of the level and the radius r, 1.5.

References:
    Tian et al., FCOS, ICCV 2019, https://arxiv.org/abs/1904.01355, section 3, and its code;
    https://arxiv.org/abs/2006.09214, section 3, for the centre. torchvision (fcos.py).
"""

import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from nnlab.data.batches import check_shape
from nnlab.errors import InputError
from nnlab.vision.detection.anchors import grid_points
from nnlab.vision.detection.boxes import area, check_boxes
from nnlab.vision.detection.coding import distances
from nnlab.vision.detection.matching import BACKGROUND

STRIDES = (8, 16, 32, 64, 128)
RANGES = ((0.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, math.inf))
Dialect = Literal["paper", "torchvision"]


def fcos_points(
    shape: tuple[int, int], stride: int, dialect: Dialect = "torchvision"
) -> np.ndarray:
    """Return (x, y) of the points of a level [height, width], float32 [height · width, 2]."""
    return grid_points(shape, stride, stride // 2 if _is_paper(dialect) else 0)


def fcos_matches(
    points: Sequence[ArrayLike],
    boxes: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    strides: Sequence[int] = STRIDES,
    ranges: Sequence[tuple[float, float]] = RANGES,
    radius: float = 1.5,
    dialect: Dialect = "torchvision",
) -> list[jax.Array]:
    """Return the object of every point, or `BACKGROUND`, int32 [points] for each level.

    Args:
        points: those of each level, [points, 2], from `fcos_points`.
        boxes: objects, [n, 4].
        mask: bool [n], which of them are there.
        strides: of each level.
        ranges: of the largest distance to a side, for each level, in pixels.
        radius: how far from an object's centre, in strides.
        dialect: "paper" or "torchvision".

    Raises:
        InputError: the boxes are not [n, 4], or points, strides and ranges are not of the same
            levels.
    """
    paper = _is_paper(dialect)
    boxes = check_boxes("boxes", boxes, 2)
    if not len(points) == len(strides) == len(ranges):
        counts = f"{len(points)}, {len(strides)} and {len(ranges)}"
        raise InputError(f"points, strides and ranges are of {counts} levels, expected the same.")
    there = jnp.ones(len(boxes), bool) if mask is None else jnp.asarray(mask)
    check_shape("mask", there, (len(boxes),))
    levels = []
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    for some, stride, (low, high) in zip(points, strides, ranges, strict=True):
        at = jnp.asarray(some, boxes.dtype)[:, None]
        sides = distances(at, boxes[None])
        reach = radius * stride
        if paper:
            near = jnp.concatenate([center - reach, center + reach], axis=-1)
            near = jnp.concatenate(
                [jnp.maximum(near[:, :2], boxes[:, :2]), jnp.minimum(near[:, 2:], boxes[:, 2:])],
                axis=-1,
            )
            fits = (distances(at, near[None]) > 0).all(-1)
            far = sides.max(-1)
            fits &= (far >= low) & (far <= high)
        else:
            fits = (jnp.abs(at - center[None]) < reach).all(-1) & (sides > 0).all(-1)
            far = sides.max(-1)
            fits &= (far > low) & (far < high)
        size = jnp.where(fits & there[None], area(boxes)[None], jnp.inf)
        if not len(boxes):
            levels.append(jnp.full(len(size), BACKGROUND, jnp.int32))
            continue
        found = jnp.isfinite(size).any(axis=1)
        levels.append(jnp.where(found, size.argmin(axis=1), BACKGROUND).astype(jnp.int32))
    return levels


def _is_paper(dialect: str) -> bool:
    if dialect not in ("paper", "torchvision"):
        raise InputError(f'dialect is {dialect!r}, expected "paper" or "torchvision".')
    return dialect == "paper"
