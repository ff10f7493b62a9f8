"""Which anchor or proposal learns which object, and which of them a step looks at.

Every anchor takes the object that it overlaps most: it is positive from one IoU on, negative below
another, and ignored between the two. So that no object is left without an anchor, those that
overlap it most, ties included, can be made positive whatever their IoU; such an anchor still learns
the object that it itself overlaps most.

References:
    Ren et al., Faster R-CNN, NeurIPS 2015, https://arxiv.org/abs/1506.01497, section 3.1.2:
    0.7 and 0.3 with the best anchor of each object, and 256 of an image, at most half positive.
    torchvision (`Matcher`, `BalancedPositiveNegativeSampler`), whose results these are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from numpy.typing import ArrayLike

from nnlab.data.batches import check_shape
from nnlab.errors import InputError, check_count
from nnlab.ops.keys import check_key

BACKGROUND, IGNORE = -1, -2


def match(
    overlaps: ArrayLike,
    foreground: float = 0.5,
    background: float | None = None,
    *,
    force: bool = False,
    mask: ArrayLike | None = None,
    ignored: ArrayLike | None = None,
) -> jax.Array:
    """Assign objects to anchors.

    Args:
        overlaps: IoU of objects with anchors, [objects, anchors].
        foreground: the least IoU of a positive anchor.
        background: an anchor below it is negative; by default as `foreground`.
        force: whether each object makes its best anchors positive. An object that overlaps none,
            as one without area, makes none so.
        mask: bool [objects], which of them are there and not padding.
        ignored: bool [objects], those that are neither to be found nor to be background (crowds,
            and difficult ones). An anchor that would be negative but overlaps one of them by
            `background` or more is ignored.

    Returns:
        int32 [anchors]: the number of the object, `BACKGROUND` or `IGNORE`.

    Raises:
        InputError: `overlaps` has not two axes, the masks are not [objects], or the thresholds are
            not in order.
    """
    overlaps = jnp.asarray(overlaps)
    background = foreground if background is None else background
    if overlaps.ndim != 2:
        raise InputError(
            f"overlaps have shape {list(overlaps.shape)}, expected [objects, anchors]."
        )
    if background > foreground:
        raise InputError(f"background is {background}, expected at most foreground, {foreground}.")
    objects, anchors = overlaps.shape
    if not objects:
        return jnp.full(anchors, BACKGROUND, jnp.int32)
    there = jnp.ones(objects, bool)
    for name, given in (("mask", mask), ("ignored", ignored)):
        if given is not None:
            check_shape(name, given, (objects,))
    there = there if mask is None else there & jnp.asarray(mask)
    found = there if ignored is None else there & ~jnp.asarray(ignored)
    counted = jnp.where(found[:, None], overlaps, -1)
    best, number = counted.max(axis=0), counted.argmax(axis=0).astype(jnp.int32)
    matches = jnp.where(best < foreground, IGNORE, number)
    matches = jnp.where(best < background, BACKGROUND, matches)
    if ignored is not None:
        others = jnp.where((there & ~found)[:, None], overlaps, -1).max(axis=0)
        hidden = (matches == BACKGROUND) & (others >= background)
        matches = jnp.where(hidden, IGNORE, matches)
    if force:
        most = counted.max(axis=1, keepdims=True)
        forced = ((counted == most) & (most > 0)).any(axis=0)
        matches = jnp.where(forced, number, matches)
    return matches


class Sample(NamedTuple):
    """Anchors that a step looks at, positive ones first.

    Attributes:
        indices: int32 [size], their numbers.
        positive: bool [size], which of them have an object.
        mask: bool [size], which entries are anchors; the others, at the end, are padding.
    """

    indices: jax.Array
    positive: jax.Array
    mask: jax.Array


def sample(key: jax.Array, matches: ArrayLike, size: int, positive_share: float = 0.5) -> Sample:
    """Draw positive anchors, at most a share of `size`, and fill up with negative ones.

    Args:
        key: draws them, each positive one and each negative one with the same chance.
        matches: int [anchors], from `match`; ignored anchors are not drawn.
        size: how many to draw, where there are so many.
        positive_share: the largest part of them that is positive.

    Returns:
        The sample; its arrays have `size` entries, or as many as there are anchors if these are
        fewer.

    Raises:
        InputError: `matches` has not one axis, or the share is not between 0 and 1.
    """
    check_key(key)
    check_count("size", size)
    matches = jnp.asarray(matches)
    if matches.ndim != 1:
        raise InputError(f"matches have shape {list(matches.shape)}, expected [anchors].")
    if not 0 <= positive_share <= 1:
        raise InputError(f"positive_share is {positive_share}, expected 0 to 1.")
    anchors = len(matches)
    size = min(size, anchors)
    most = min(int(size * positive_share), anchors)
    drawn = 1 - jax.random.uniform(key, (anchors,))  # above 0
    is_positive, is_negative = matches >= 0, matches == BACKGROUND
    order, indices = [], []
    for wanted, count in ((is_positive, most), (is_negative, size)):
        values, places = lax.top_k(jnp.where(wanted, drawn, 0), count)
        order.append(values > 0)
        indices.append(places)
    there = jnp.concatenate(order)
    chosen = jnp.argsort(~there, stable=True)[:size]
    return Sample(
        jnp.concatenate(indices).astype(jnp.int32)[chosen],
        (chosen < most) & there[chosen],
        there[chosen],
    )
