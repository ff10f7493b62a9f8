"""Augmentation of images together with what is in them: boxes and masks, on the device.

Boxes move with the pixels. One that is cut off at the border keeps the part that is seen, and is
left out of the mask where that is too small: what an augmentation leaves without area would make
losses NaN. All are pure functions of a key, for use inside a jitted step.
"""

import jax
import jax.numpy as jnp

from nnlab.data.batches import check_shape
from nnlab.errors import InputError
from nnlab.ops.keys import check_key
from nnlab.vision.augment import check_rank
from nnlab.vision.datasets.labelled import Boxes
from nnlab.vision.resized_crop import cut_out, rectangles


def random_flip_with_boxes(
    key: jax.Array, images: jax.Array, boxes: Boxes, *, vertical: bool = False
) -> tuple[jax.Array, Boxes]:
    """Mirror every image and its boxes left to right with probability 1/2.

    Args:
        key: as for `nnlab.vision.random_flip`.
        images: [n, height, width, channels], of any dtype.
        boxes: objects of each image, [n, most, …].
        vertical: also upside down, with the same probability, as cells may be but streets not.

    Raises:
        InputError: images or boxes have other shapes.
    """
    _check(key, images, boxes)
    keys = jax.random.split(key) if vertical else [key]
    for axis, each in zip((2, 1), keys, strict=False):
        drawn = jax.random.bernoulli(each, shape=(len(images), 1, 1, 1))
        images, boxes = _mirrored(images, boxes, drawn, axis)
    return images, boxes


def _mirrored(
    images: jax.Array, boxes: Boxes, drawn: jax.Array, axis: int
) -> tuple[jax.Array, Boxes]:
    """Mirror the images that are `drawn` [n, 1, 1, 1], and their boxes, along an axis."""
    low = 2 - axis  # of x or y among corners
    corners = jnp.asarray(boxes.boxes)
    side = images.shape[axis]
    turned = corners.at[..., low].set(side - corners[..., low + 2])
    turned = turned.at[..., low + 2].set(side - corners[..., low])
    turned = jnp.where(jnp.asarray(boxes.mask)[..., None], turned, 0)
    moved = jnp.where(drawn[:, 0], turned, corners)
    return jnp.where(drawn, jnp.flip(images, axis), images), boxes._replace(boxes=moved)


def random_resized_crop_with_boxes(
    key: jax.Array,
    images: jax.Array,
    boxes: Boxes,
    size: tuple[int, int] | None = None,
    *,
    scale: tuple[float, float] = (0.4, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    least_part: float = 0.3,
    least_side: float = 1.0,
) -> tuple[jax.Array, Boxes]:
    """Cut a random rectangle out of every image, with its boxes, and bring it to `size`.

    Args:
        key, images, size, scale, ratio: as for `nnlab.vision.random_resized_crop`.
        boxes: objects of each image, [n, most, …].
        least_part: the part of a box's area that must be seen for it to stay.
        least_side: the least width and height of what is seen of it, in pixels of the result.

    Returns:
        Images of that size, and boxes whose mask leaves out those that are not to be found.

    Raises:
        InputError: images or boxes have other shapes, or a size or a range is none.
    """
    _check(key, images, boxes)
    height, width = images.shape[1:3] if size is None else size
    starts, lengths = rectangles(key, images.shape, scale, ratio)
    cut = cut_out(images, starts, lengths, (height, width))
    first, sides = starts.astype(jnp.float32), lengths.astype(jnp.float32)
    factor = jnp.array([[height, width]], jnp.float32) / sides
    first, factor = (jnp.tile(each[:, ::-1], 2)[:, None] for each in (first, factor))
    moved = (jnp.asarray(boxes.boxes) - first) * factor
    limits = jnp.array([width, height] * 2, moved.dtype)[None, None]
    seen = jnp.clip(moved, 0, limits)
    whole, part = ((each[..., 2:] - each[..., :2]).prod(-1) for each in (moved, seen))
    stays = (seen[..., 2:] - seen[..., :2] >= least_side).all(-1) & (part >= least_part * whole)
    mask = jnp.asarray(boxes.mask) & stays
    return cut, boxes._replace(boxes=jnp.where(mask[..., None], seen, 0), mask=mask)


def random_flip_with_masks(
    key: jax.Array, images: jax.Array, masks: jax.Array, *, vertical: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Mirror every image and its mask left to right with probability 1/2.

    Args:
        key: of the draws.
        images: [n, height, width, channels], of any dtype.
        masks: [n, height, width], of any dtype.
        vertical: also upside down, with the same probability, as cells may be but streets not.

    Raises:
        InputError: images or masks have other shapes.
    """
    _check_masks(key, images, masks)
    across, down = jax.random.bernoulli(key, shape=(2, len(images), 1, 1, 1))
    for axis, drawn in ((2, across), *([(1, down)] if vertical else [])):
        images = jnp.where(drawn, jnp.flip(images, axis), images)
        masks = jnp.where(drawn[..., 0], jnp.flip(masks, axis), masks)
    return images, masks


def random_crop_with_masks(
    key: jax.Array, images: jax.Array, masks: jax.Array, size: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    """Cut the same part of a size out of every image and its mask, with no pixel changed.

    Args:
        key: of the first rows and columns.
        images: [n, height, width, channels], of any dtype.
        masks: [n, height, width], of any dtype.
        size: height and width of the result.

    Raises:
        InputError: images or masks have other shapes, or the size is larger.
    """
    _check_masks(key, images, masks)
    free = images.shape[1] - size[0], images.shape[2] - size[1]
    if min(free) < 0 or min(size) < 1:
        given = f"{size[0]} by {size[1]}"
        raise InputError(
            f"size is {given}, expected at most {images.shape[1]} by {images.shape[2]}."
        )
    firsts = jax.random.randint(key, (len(images), 2), 0, jnp.array(free)[None] + 1)

    def cut(image, mask, first):
        return (
            jax.lax.dynamic_slice(image, (first[0], first[1], 0), (*size, image.shape[-1])),
            jax.lax.dynamic_slice(mask, (first[0], first[1]), size),
        )

    return jax.vmap(cut)(jnp.asarray(images), jnp.asarray(masks), firsts)


def _check(key: jax.Array, images: jax.Array, boxes: Boxes) -> None:
    check_key(key)
    check_rank(images)
    most = boxes.mask.shape[-1:]
    check_shape("boxes", boxes.boxes, (len(images), *most, 4))
    check_shape("masks of boxes", boxes.mask, (len(images), *most))


def _check_masks(key: jax.Array, images: jax.Array, masks: jax.Array) -> None:
    check_key(key)
    check_rank(images)
    check_shape("masks", masks, images.shape[:3])
