r"""Non-maximum suppression in a program of fixed shapes.

In the order of scores, a box is kept unless its IoU with one that is kept before it is **above**
the threshold. Equal scores are taken in the order of the boxes.

The boxes are taken in blocks. A block is first compared with all boxes that are kept before it,
a block of these at a time. Within the block let S_ji say that j comes before i and suppresses it.
What is kept is the one solution of

.. math:: k_i = a_i \wedge \neg \bigvee_{j<i} (k_j \wedge S_{ji}),             (1)

where a are those that earlier blocks leave. Iterating (1) from k = a settles the first entries
first, and so ends at the solution. No step looks at one box alone, and comparing n boxes of which k
are kept takes about nk/2 quotients, as the loop over single boxes does.

References:
    torchvision (`nms_kernel.cpp`) for the order and the strict inequality.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from numpy.typing import ArrayLike

from nnlab.data.batches import check_shape
from nnlab.errors import check_count
from nnlab.vision.detection.boxes import check_boxes

_BLOCK, _TILE = 256, 128  # boxes that are decided at once, and kept ones they meet at once


class Kept(NamedTuple):
    """Boxes that are kept, the highest score first.

    Attributes:
        indices: int32 [count], their numbers; 0 in padding.
        mask: bool [count], which entries are boxes; the others, at the end, are padding.
    """

    indices: jax.Array
    mask: jax.Array


def nms(
    boxes: ArrayLike,
    scores: ArrayLike,
    threshold: float = 0.5,
    *,
    classes: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    count: int | None = None,
) -> Kept:
    """Keep the boxes of an image that no box of a higher score overlaps.

    `jax.vmap` takes several images at once.

    Args:
        boxes: (x1, y1, x2, y2), [n, 4].
        scores: [n]. A box whose score is NaN or −inf is left out.
        threshold: the largest IoU of two boxes that are kept.
        classes: integers [n]; boxes of different classes do not suppress each other.
        mask: bool [n], which boxes are there.
        count: how many to return, at most; by default n.

    Returns:
        The first `count` that are kept. It is computed in the dtype of the boxes and has no
        derivative.

    Raises:
        InputError: the boxes are not [n, 4], or the other arrays not [n].
    """
    boxes = lax.stop_gradient(check_boxes("boxes", boxes, 2))
    n = len(boxes)
    count = n if count is None else count
    check_count("count", count, 0)
    scores = lax.stop_gradient(jnp.asarray(scores))
    check_shape("scores", scores, (n,))
    for name, given in (("classes", classes), ("mask", mask)):
        if given is not None:
            check_shape(name, given, (n,))
    if not n or not count:
        return Kept(jnp.zeros(count, jnp.int32), jnp.zeros(count, bool))
    there = scores > -jnp.inf
    there = there if mask is None else there & jnp.asarray(mask)
    order = jnp.argsort(jnp.where(there, -scores, jnp.inf), stable=True)
    groups = jnp.zeros(n, jnp.int32) if classes is None else jnp.asarray(classes, jnp.int32)
    return _suppress(boxes[order], groups[order], there[order], order, threshold, count)


class _Columns(NamedTuple):
    """Sides, areas and classes of boxes, one array each."""

    x1: jax.Array
    y1: jax.Array
    x2: jax.Array
    y2: jax.Array
    area: jax.Array
    group: jax.Array


def _suppresses(a: _Columns, b: _Columns, threshold: float, classes: bool) -> jax.Array:
    """Return which boxes of a [m] overlap which of b [n] too much, bool [m, n]."""
    a = _Columns(*(column[:, None] for column in a))
    b = _Columns(*(column[None] for column in b))
    wide = jnp.maximum(jnp.minimum(a.x2, b.x2) - jnp.maximum(a.x1, b.x1), 0)
    high = jnp.maximum(jnp.minimum(a.y2, b.y2) - jnp.maximum(a.y1, b.y1), 0)
    shared = wide * high
    above = shared / (a.area + b.area - shared) > threshold
    return above & (a.group == b.group) if classes else above


def _suppress(
    boxes: jax.Array,
    groups: jax.Array,
    there: jax.Array,
    order: jax.Array,
    threshold: float,
    count: int,
) -> Kept:
    n = len(boxes)
    block = min(_BLOCK, n)
    blocks = -(-n // block)
    x1, y1, x2, y2 = boxes.T
    columns = _Columns(x1, y1, x2, y2, (x2 - x1) * (y2 - y1), groups)
    columns, there, order = jax.tree.map(
        lambda each: jnp.pad(each, (0, blocks * block - n)), (columns, there, order)
    )
    room = -(-count // _TILE) * _TILE + max(block, _TILE)  # a block is written whole
    kept = jax.tree.map(lambda each: jnp.zeros(room, each.dtype), (columns, order))
    alive = jnp.count_nonzero(there)  # these come first
    before = jnp.arange(block)[:, None] < jnp.arange(block)[None]
    cut = functools.partial(lax.dynamic_slice_in_dim, slice_size=block)
    compare = functools.partial(_suppresses, threshold=threshold, classes=True)

    def more(state):
        number, total, _ = state
        return (number * block < alive) & (total < count)

    def one_block(state):
        number, total, (kept, indices) = state
        here = jax.tree.map(lambda each: cut(each, number * block), columns)
        left = cut(there, number * block)

        def against(tile, left):
            earlier = jax.tree.map(
                lambda each: lax.dynamic_slice_in_dim(each, tile * _TILE, _TILE), kept
            )
            known = tile * _TILE + jnp.arange(_TILE) < total
            return left & ~(compare(earlier, here) & known[:, None]).any(axis=0)

        left = lax.fori_loop(0, -(-total // _TILE), against, left)

        def resolve(total, kept, indices):
            within = compare(here, here) & before

            def settle(pair):
                return left & ~(within & pair[0][:, None]).any(axis=0), pair[0]  # (1)

            unlike = lambda pair: (pair[0] != pair[1]).any()  # noqa: E731
            keep, _ = lax.while_loop(unlike, settle, settle((left, left)))
            first = jnp.argsort(~keep, stable=True)
            kept, indices = jax.tree.map(
                lambda all_, some: lax.dynamic_update_slice_in_dim(all_, some[first], total, 0),
                (kept, indices),
                (here, cut(order, number * block)),
            )
            return total + jnp.count_nonzero(keep), kept, indices

        unchanged = lambda *state: state  # noqa: E731
        total, kept, indices = lax.cond(left.any(), resolve, unchanged, total, kept, indices)
        return number + 1, total, (kept, indices)

    zero = jnp.zeros((), alive.dtype)
    _, total, (_, indices) = lax.while_loop(more, one_block, (zero, zero, kept))
    mask = jnp.arange(count) < total
    return Kept(jnp.where(mask, indices[:count], 0).astype(jnp.int32), mask)
