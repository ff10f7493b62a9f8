"""Anchors: the boxes of fixed sizes and shapes from which a detector measures its own.

A level of a network has the same few anchors at every position of its grid: all shapes of a
position, positions from left to right, then from top to bottom. A ratio is height over width.

Two conventions are in use. Faster R-CNN's code begins with the pixels 0 to 15 of a window, both
included, rounds, and then scales; torchvision centres boxes of the given sizes on the corner of
position (0, 0) and rounds. Feature pyramids have one size a level, RetinaNet three.

References:
    Ren et al., Faster R-CNN, NeurIPS 2015, https://arxiv.org/abs/1506.01497, and its code
    (generate_anchors.py). torchvision (anchor_utils.py).
    Lin et al., RetinaNet, ICCV 2017, https://arxiv.org/abs/1708.02002, section 4.
    Redmon and Farhadi, YOLO9000, CVPR 2017, https://arxiv.org/abs/1612.08242, section 2, for
    anchors found by clustering.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from nnlab.errors import InputError, check_count

RATIOS = (0.5, 1.0, 2.0)
PYRAMID_SIZES = ((32,), (64,), (128,), (256,), (512,))  # of P2 to P6
RETINA_SIZES = tuple((s, int(s * 2 ** (1 / 3)), int(s * 2 ** (2 / 3))) for (s,) in PYRAMID_SIZES)
YOLO_V2_VOC = (  # width and height, in cells of 32 pixels
    *((1.3221, 1.73145), (3.19275, 4.00944), (5.05587, 8.09892)),
    *((9.47112, 4.84053), (11.2364, 10.0071)),
)
YOLO_V3 = (  # width and height in pixels, for images of 416
    *((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119)),
    *((116, 90), (156, 198), (373, 326)),
)
YOLO_V3_TINY = ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319))


def window_anchors(
    base: int = 16,
    ratios: Sequence[float] = RATIOS,
    scales: Sequence[float] = (8, 16, 32),
) -> np.ndarray:
    """Return the anchors of Faster R-CNN's code, float32 [ratios · scales, 4], both ends included.

    Args:
        base: side of the window in pixels, the stride of the network.
        ratios: height over width.
        scales: each is the side of an anchor over that of the window.
    """
    middle = (base - 1) / 2
    widths = np.round(np.sqrt(base**2 / np.asarray(ratios, np.float64)))
    heights = np.round(widths * ratios)
    half = (np.stack([widths, heights], -1)[:, None] * np.asarray(scales)[:, None] - 1) / 2
    half = half.reshape(-1, 2)
    return np.concatenate([middle - half, middle + half], axis=-1).astype(np.float32)


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float] = RATIOS) -> np.ndarray:
    """Return torchvision's anchors around (0, 0), float32 [ratios · sizes, 4].

    Args:
        sizes: roots of areas, in pixels.
        ratios: height over width.
    """
    stretch = np.sqrt(np.asarray(ratios, np.float32))[:, None]
    lengths = np.asarray(sizes, np.float32)
    half = np.stack([(1 / stretch * lengths).ravel(), (stretch * lengths).ravel()], axis=-1) / 2
    return np.concatenate([-half, half], axis=-1).round()


def grid_points(
    shape: tuple[int, int], stride: int | tuple[int, int], offset: float = 0.0
) -> np.ndarray:
    """Return (x, y) of the positions of a grid, float32 [height · width, 2].

    Args:
        shape: height and width of the grid.
        stride: pixels from one position to the next, or one number down and one across.
        offset: where the first position is.
    """
    down, across = (stride, stride) if isinstance(stride, int) else stride
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return np.stack([x * across, y * down], axis=-1).reshape(-1, 2) + np.float32(offset)


def grid_anchors(
    anchors: np.ndarray, shape: tuple[int, int], stride: int | tuple[int, int]
) -> np.ndarray:
    """Return the anchors of every position of a grid, float32 [height · width · n, 4].

    Args:
        anchors: those of position (0, 0), [n, 4].
        shape, stride: as for `grid_points`.
    """
    points = grid_points(shape, stride)
    return (np.tile(points, 2)[:, None] + anchors[None]).reshape(-1, 4).astype(np.float32)


def pyramid_anchors(
    image_shape: tuple[int, int],
    grid_shapes: Sequence[tuple[int, int]],
    sizes: Sequence[Sequence[float]] = PYRAMID_SIZES,
    ratios: Sequence[float] = RATIOS,
) -> list[np.ndarray]:
    """Return torchvision's anchors of each level of a feature pyramid, float32 [anchors, 4] each.

    Args:
        image_shape: height and width of the images, in pixels.
        grid_shapes: height and width of each level; its stride is the whole number of times that
            these go into those of the image.
        sizes: of each level.
        ratios: height over width.

    Raises:
        InputError: there is not one list of sizes a level.
    """
    if len(sizes) != len(grid_shapes):
        raise InputError(f"there are sizes of {len(sizes)} levels, expected {len(grid_shapes)}.")
    levels = []
    for shape, some in zip(grid_shapes, sizes, strict=True):
        stride = image_shape[0] // shape[0], image_shape[1] // shape[1]
        levels.append(grid_anchors(cell_anchors(some, ratios), shape, stride))
    return levels


def inside(anchors: ArrayLike, height: float, width: float, border: float = 0) -> np.ndarray:
    """Return which anchors [n, 4] lie within an image and `border` pixels around it, bool [n].

    Faster R-CNN trains on no others.
    """
    anchors = np.asarray(anchors)
    low, high = anchors[:, :2] >= -border, anchors[:, 2:] < np.array([width, height]) + border
    return np.asarray(np.concatenate([low, high], axis=1).all(axis=1))


def shape_iou(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Return the IoU of sizes a [n, 2] with b [m, 2], laid on each other at one corner, [n, m]."""
    a, b = np.asarray(a, np.float64)[:, None], np.asarray(b, np.float64)[None]
    shared = np.minimum(a, b).prod(-1)
    return shared / (a.prod(-1) + b.prod(-1) - shared)


def clustered_anchors(
    sizes: ArrayLike, count: int, *, seed: int = 0, tries: int = 10, steps: int = 300
) -> np.ndarray:
    """Find the sizes that fit a data set best: k-means with the distance 1 − IoU.

    Each centre is the median of its sizes, or stays where it is if it has none. Of several starts,
    each from sizes of the data set, the one with the largest mean IoU is returned.

    Args:
        sizes: widths and heights [n, 2] of a data set's boxes, in pixels of the images that the
            network gets.
        count: how many to find.
        seed: draws the starts.
        tries: how many starts.
        steps: most steps of one start.

    Returns:
        float64 [count, 2], the smallest area first.

    Raises:
        InputError: the sizes are not [n, 2] and positive, or fewer than `count` differ.
    """
    sizes = np.asarray(sizes, np.float64)
    check_count("count", count)
    if sizes.ndim != 2 or sizes.shape[1] != 2 or not (sizes > 0).all():
        raise InputError(f"sizes have shape {list(sizes.shape)}, expected positive ones [n, 2].")
    distinct = np.unique(sizes, axis=0)
    if len(distinct) < count:
        raise InputError(f"{len(distinct)} sizes differ, expected at least {count}.")
    generator = np.random.default_rng(seed)
    best, found = -1.0, distinct[:count]
    for _ in range(tries):
        centres = distinct[generator.choice(len(distinct), count, replace=False)]
        before = None
        for _ in range(steps):
            nearest = shape_iou(sizes, centres).argmax(1)
            if before is not None and (nearest == before).all():
                break
            before = nearest
            for number in np.unique(nearest):
                centres[number] = np.median(sizes[nearest == number], axis=0)
        fit = mean_best_iou(sizes, centres)
        if fit > best:
            best, found = fit, centres
    return found[np.argsort(found.prod(1), kind="stable")]


def mean_best_iou(sizes: ArrayLike, anchors: ArrayLike) -> float:
    """Return the mean over sizes [n, 2] of the largest IoU with an anchor [m, 2]."""
    return float(shape_iou(sizes, anchors).max(1).mean())
