r"""Boxes (x1, y1, x2, y2) in pixels: areas, overlaps, and other ways to write them.

A box has the width x2 − x1 and the height y2 − y1; with `inclusive` both corners are pixels that
belong to it, as in the devkit of Pascal VOC, and each side is 1 longer. For boxes a and b with the
areas |a| and |b|, the area of their smallest common box C, the squared distance ρ² of their
centres and the squared diagonal c² of C:

.. math::
    \mathrm{IoU} &= \frac{|a \cap b|}{|a \cup b|},                             (1) \\
    \mathrm{GIoU} &= \mathrm{IoU} - \frac{|C| - |a \cup b|}{|C|},              (2) \\
    \mathrm{DIoU} &= \mathrm{IoU} - \rho^2 / c^2,                              (3) \\
    \mathrm{CIoU} &= \mathrm{DIoU} - \alpha v, \quad
        v = \frac{4}{\pi^2} \left(\arctan \frac{w_a}{h_a} - \arctan \frac{w_b}{h_b}\right)^2,
        \quad \alpha = \frac{v}{1 - \mathrm{IoU} + v}.                         (4)

In (4) α is a constant of the gradient. Where a quotient is 0/0 it is 0, and so is its gradient.

References:
    Rezatofighi et al., Generalized intersection over union, CVPR 2019,
    https://arxiv.org/abs/1902.09630: (2).
    Zheng et al., Distance-IoU loss, AAAI 2020, https://arxiv.org/abs/1911.08287: (3) and (4).
"""

import math

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from nnlab.errors import InputError


def check_boxes(name: str, boxes: ArrayLike, axes: int | None = None) -> jax.Array:
    """Return boxes [..., 4] as floating-point numbers.

    Args:
        name: of the argument, in the plural.
        boxes: numbers.
        axes: how many there must be; by default any number from 1.

    Raises:
        InputError: the last axis has not four entries, or there are not so many axes.
    """
    array = jnp.asarray(boxes)
    if array.ndim < 1 or array.shape[-1] != 4 or array.ndim != (axes or array.ndim):
        expected = "[..., 4]" if axes is None else f"[{'n, ' * (axes - 1)}4]"
        raise InputError(f"{name} have shape {list(array.shape)}, expected {expected}.")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(jnp.float32)
    return array


def area(boxes: ArrayLike, *, inclusive: bool = False) -> jax.Array:
    """Return areas [...] of boxes [..., 4] in square pixels; a box turned inside out has none."""
    boxes = check_boxes("boxes", boxes)
    return jnp.prod(_sides(boxes, inclusive), axis=-1)


def iou(a: ArrayLike, b: ArrayLike, *, inclusive: bool = False) -> jax.Array:
    """Return the intersection over union (1) of boxes a [..., 4] and b [..., 4], of one shape.

    Two axes of which one is 1 meet as anywhere in JAX: `pairwise` does that for all pairs.

    Raises:
        InputError: these are no boxes.
    """
    a, b = check_boxes("boxes", a), check_boxes("boxes", b)
    shared, union = _shared_and_union(a, b, inclusive)
    return _ratio(shared, union)


def giou(a: ArrayLike, b: ArrayLike, *, inclusive: bool = False) -> jax.Array:
    """Return the generalised IoU (2), from -1 to 1; arguments are those of `iou`."""
    a, b = check_boxes("boxes", a), check_boxes("boxes", b)
    shared, union = _shared_and_union(a, b, inclusive)
    whole = jnp.prod(_sides(_hull(a, b), inclusive), axis=-1)
    return _ratio(shared, union) - _ratio(whole - union, whole)


def diou(a: ArrayLike, b: ArrayLike) -> jax.Array:
    """Return the distance IoU (3), from -1 to 1; arguments are those of `iou`."""
    a, b = check_boxes("boxes", a), check_boxes("boxes", b)
    shared, union = _shared_and_union(a, b, False)
    apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    diagonal = _hull(a, b)[..., 2:] - _hull(a, b)[..., :2]
    distance = _ratio((apart**2).sum(axis=-1), (diagonal**2).sum(axis=-1))
    return _ratio(shared, union) - distance


def ciou(a: ArrayLike, b: ArrayLike) -> jax.Array:
    """Return the complete IoU (4), which also compares shapes; arguments are those of `iou`."""
    a, b = check_boxes("boxes", a), check_boxes("boxes", b)
    (wide, high), (wide_b, high_b) = (jnp.moveaxis(_sides(boxes, False), -1, 0) for boxes in (a, b))
    turned = jnp.arctan(_ratio(wide, high)) - jnp.arctan(_ratio(wide_b, high_b))
    v = 4 / math.pi**2 * turned**2
    alpha = jax.lax.stop_gradient(_ratio(v, 1 - iou(a, b) + v))
    return diou(a, b) - alpha * v


def pairwise(a: ArrayLike, b: ArrayLike, *, inclusive: bool = False) -> jax.Array:
    """Return the IoU of every box of a [n, 4] with every box of b [m, 4], [n, m].

    Raises:
        InputError: these are no lists of boxes.
    """
    a, b = check_boxes("boxes", a, 2), check_boxes("boxes", b, 2)
    return iou(a[:, None], b[None], inclusive=inclusive)


def clip(boxes: ArrayLike, height: float | jax.Array, width: float | jax.Array) -> jax.Array:
    """Cut off what of boxes [..., 4] lies outside of an image of this size in pixels."""
    boxes = check_boxes("boxes", boxes)
    limits = jnp.stack([jnp.asarray(side, boxes.dtype) for side in (width, height) * 2])
    return jnp.clip(boxes, 0, limits)


def centers(boxes: ArrayLike) -> jax.Array:
    """Return (x of the centre, y, width, height) of boxes [..., 4]."""
    boxes = check_boxes("boxes", boxes)
    low, high = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([(low + high) / 2, high - low], axis=-1)


def corners(boxes: ArrayLike) -> jax.Array:
    """Return the boxes whose (x of the centre, y, width, height) these are, [..., 4]."""
    boxes = check_boxes("boxes", boxes)
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return jnp.concatenate([center - half, center + half], axis=-1)


def _sides(boxes: jax.Array, inclusive: bool) -> jax.Array:
    return jnp.maximum(boxes[..., 2:] - boxes[..., :2] + (1 if inclusive else 0), 0)


def _hull(a: jax.Array, b: jax.Array) -> jax.Array:
    low, high = jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:])
    return jnp.concatenate([low, high], axis=-1)


def _shared_and_union(a: jax.Array, b: jax.Array, inclusive: bool) -> tuple[jax.Array, jax.Array]:
    low, high = jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])
    shared = jnp.prod(_sides(jnp.concatenate([low, high], axis=-1), inclusive), axis=-1)
    areas = [jnp.prod(_sides(boxes, inclusive), axis=-1) for boxes in (a, b)]
    return shared, areas[0] + areas[1] - shared


def _ratio(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return a / b, or 0 with a gradient of 0 where b is 0."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)
