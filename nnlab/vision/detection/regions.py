r"""Features of regions, all of one size: RoIAlign, RoI pooling, and the levels of a pyramid.

RoIAlign divides a region of the feature map into bins, takes features at the centres of s × s
equal parts of each by bilinear interpolation, and returns their mean. A pixel's feature is at its
upper left corner with `aligned=False`, as in the first publication, which also widens a region to
one pixel at least; with `aligned=True` it is in the middle, half a pixel further. A point outside
the map is moved to its border; with `outside="zero"` it counts as 0 if it is more than one pixel
outside, as in the compiled bodies of torchvision, whose body in Python does not look at that.

RoI pooling rounds a region to whole pixels, both ends included, and its bins outwards, and returns
the largest feature of each bin, or 0 where it lies outside.

References:
    He et al., Mask R-CNN, ICCV 2017, https://arxiv.org/abs/1703.06870, section 3: RoIAlign.
    Girshick, Fast R-CNN, ICCV 2015, https://arxiv.org/abs/1504.08083, section 2.1: RoI pooling.
    Lin et al., Feature pyramid networks, CVPR 2017, https://arxiv.org/abs/1612.03144, eq. (1).
    torchvision (`roi_align`, `roi_pool`, `LevelMapper`), whose results these are.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import ArrayLike

from nnlab.errors import InputError, check_count
from nnlab.ops.windows import pair
from nnlab.vision.detection.boxes import area, check_boxes


def pyramid_level(
    boxes: ArrayLike, least: int = 2, most: int = 5, *, size: float = 224.0, level: int = 4
) -> jax.Array:
    """Return the level of a pyramid that each box [..., 4] takes its features from, int32 [...].

    It is ⌊level + log₂(√area / size) + 10⁻⁶⌋ between `least` and `most`.
    """
    side = jnp.sqrt(area(boxes))
    found = jnp.floor(level + jnp.log2(jnp.maximum(side, 1e-6) / size) + 1e-6)
    return jnp.clip(found, least, most).astype(jnp.int32)


def roi_align(
    features: jax.Array | Sequence[jax.Array],
    boxes: ArrayLike,
    size: int | tuple[int, int],
    scale: float | Sequence[float] = 1.0,
    *,
    samples: int = 2,
    aligned: bool = False,
    outside: Literal["zero", "border"] = "zero",
    level: ArrayLike | None = None,
) -> jax.Array:
    """Return features of the regions of an image by RoIAlign; `jax.vmap` takes several images.

    Args:
        features: [height, width, channels], or one such map for each level of a pyramid.
        boxes: regions in pixels of the image, [n, 4]; no gradient goes to them.
        size: height and width of the result, or one number for both.
        scale: pixels of a map over pixels of the image; of a pyramid one a level.
        samples: points of a bin in each direction.
        aligned: whether the middle of a pixel is where its feature is.
        outside: what a point more than one pixel outside the map counts as.
        level: of a pyramid, the map of each region from 0, integers [n].

    Returns:
        [n, *size, channels], dtype of the features.

    Raises:
        InputError: a map has not three axes, the boxes are not [n, 4], or there are not as many
            scales, or no level for each box.
    """
    maps = list(features) if isinstance(features, list | tuple) else [jnp.asarray(features)]
    scales = [scale] if isinstance(scale, int | float) else list(scale)
    size = pair("size", size)
    check_count("samples", samples)
    boxes = lax.stop_gradient(check_boxes("boxes", boxes, 2))
    for each in maps:
        _check_map(each)
    if len(scales) != len(maps) or (level is None) != (len(maps) == 1):
        expected = "with one scale each, and the level of each box where there are several"
        raise InputError(
            f"there are {len(maps)} maps and {len(scales)} scales, expected {expected}."
        )
    number = jnp.zeros(len(boxes), jnp.int32) if level is None else jnp.asarray(level)
    if number.shape != (len(boxes),):
        raise InputError(f"level has shape {list(number.shape)}, expected [{len(boxes)}].")
    shapes = np.array([each.shape[:2] for each in maps])
    starts = np.concatenate([[0], np.cumsum(shapes.prod(1))[:-1]])
    table = jnp.concatenate([each.reshape(-1, each.shape[-1]) for each in maps])
    height, width = (jnp.asarray(sides, jnp.int32)[number] for sides in shapes.T)
    offset = jnp.asarray(starts, jnp.int32)[number]
    scaled = boxes * jnp.asarray(scales, boxes.dtype)[number][:, None] - (0.5 if aligned else 0)
    if outside not in ("zero", "border"):
        raise InputError(f'outside is {outside!r}, expected "zero" or "border".')
    options = samples, aligned, outside == "border"
    rows = _interpolation(scaled[:, 1], scaled[:, 3], height, size[0], *options)
    columns = _interpolation(scaled[:, 0], scaled[:, 2], width, size[1], *options)
    total = jnp.zeros((), table.dtype)
    for row, share in rows:
        for column, part in columns:
            places = offset[:, None, None] + row[:, :, None] * width[:, None, None]
            weight = (share[:, :, None] * part[:, None])[..., None].astype(table.dtype)
            total = total + weight * table[places + column[:, None]]
    return total / samples**2


def _interpolation(
    low: jax.Array,
    high: jax.Array,
    pixels: jax.Array,
    bins: int,
    samples: int,
    aligned: bool,
    border: bool,
) -> list[tuple[jax.Array, jax.Array]]:
    """Return pixels of one axis and their weights, [n, bins] each, two for each sample of a bin."""
    length = high - low if aligned else jnp.maximum(high - low, 1)
    last = (pixels - 1)[:, None]
    found = []
    for sample in range(samples):
        at = jnp.arange(bins, dtype=low.dtype)[None] + (sample + 0.5) / samples
        at = low[:, None] + at * (length / bins)[:, None]
        inside = ((at >= -1) & (at <= pixels[:, None].astype(at.dtype))) | border
        at = jnp.clip(at, 0, last.astype(at.dtype))
        first = jnp.floor(at).astype(jnp.int32)
        part = at - first.astype(at.dtype)
        found.append((first, jnp.where(inside, 1 - part, 0)))
        found.append((jnp.minimum(first + 1, last), jnp.where(inside, part, 0)))
    return found


def roi_pool(
    features: jax.Array, boxes: ArrayLike, size: int | tuple[int, int], scale: float = 1.0
) -> jax.Array:
    """Return features of the regions of an image by RoI pooling; `jax.vmap` takes several images.

    Args:
        features: [height, width, channels].
        boxes, size, scale: as for `roi_align`, of one map.

    Returns:
        [n, *size, channels], dtype of the features.

    Raises:
        InputError: the map has not three axes, or the boxes are not [n, 4].
    """
    _check_map(features)
    down, across = pair("size", size)
    boxes = lax.stop_gradient(check_boxes("boxes", boxes, 2))
    scaled = boxes * scale
    rounded = jnp.sign(scaled) * jnp.floor(jnp.abs(scaled) + 0.5)  # halves away from 0, as in C
    rows = _bins(rounded[:, 1], rounded[:, 3], features.shape[0], down)
    columns = _bins(rounded[:, 0], rounded[:, 2], features.shape[1], across)

    @jax.checkpoint
    def one(masks):
        row, column = masks
        lowest = jnp.asarray(-jnp.inf, features.dtype)
        wide = jnp.where(column[:, None, :, None], features[None], lowest).max(axis=2)
        pooled = jnp.where(row[:, None, :, None], wide[None], lowest).max(axis=2)
        empty = ~(row.any(axis=1)[:, None] & column.any(axis=1)[None])
        return jnp.where(empty[..., None], 0, pooled)

    if not len(boxes):
        return jnp.zeros((0, down, across, features.shape[-1]), features.dtype)
    return lax.map(one, (rows, columns))


def _bins(low: jax.Array, high: jax.Array, pixels: int, bins: int) -> jax.Array:
    """Return which pixels of one axis are in each bin, bool [n, bins, pixels]."""
    length = jnp.maximum(high - low + 1, 1)[:, None] / bins
    number = jnp.arange(bins, dtype=low.dtype)[None]
    first = jnp.floor(number * length) + low[:, None]
    after = jnp.ceil((number + 1) * length) + low[:, None]
    pixel = jnp.arange(pixels, dtype=low.dtype)
    return (pixel >= first[..., None]) & (pixel < after[..., None])


def _check_map(features: jax.Array) -> None:
    if features.ndim != 3:
        expected = "expected [height, width, channels]"
        raise InputError(f"features have shape {list(features.shape)}, {expected}.")
