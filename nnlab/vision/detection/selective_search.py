"""Selective search: boxes that may hold an object, from colours and textures alone.

The picture is cut into many small segments (Felzenszwalb and Huttenlocher): pixels are joined along
edges in the order of their differences in colour, two segments if the edge between them is at most
Int + scale / size of either, where Int is the largest edge within. Then the two neighbours most
like each other are joined, again and again, until one is left. Every segment on the way gives a
box. Similarity is the sum of

==========  ====================================================================
colour      intersection of histograms, 25 bins a channel
texture     intersection of histograms of derivatives in 8 directions, 10 bins
size        1 − (size_a + size_b) / size of the picture
fill        1 − (box of both − size_a − size_b) / size of the picture
==========  ====================================================================

References:
    Uijlings et al., Selective search for object recognition, IJCV 2013, sections 3.1 and 3.2. As in
    its fast mode there are several scales; HSV is the one space of colours here, and boxes come in
    the order of the hierarchy, largest first, without its random numbers.
    Felzenszwalb and Huttenlocher, Efficient graph-based image segmentation, IJCV 2004, algorithm 1.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from nnlab.errors import InputError

_DIRECTIONS = np.arange(8) * np.pi / 4
_COLOUR_BINS, _TEXTURE_BINS = 25, 10


def segments(
    image: np.ndarray, scale: float = 100.0, *, sigma: float = 0.8, least: int = 20
) -> np.ndarray:
    """Cut a picture into segments of like colour.

    Args:
        image: uint8 [height, width, channels].
        scale: how much larger segments are preferred; the k of the paper.
        sigma: of the Gaussian that smooths first, in pixels.
        least: pixels of a segment; smaller ones are joined with a neighbour.

    Returns:
        Number of the segment of every pixel, from 0, int32 [height, width].

    Raises:
        InputError: the image has not three axes.
    """
    if image.ndim != 3:
        raise InputError(
            f"image has shape {list(image.shape)}, expected [height, width, channels]."
        )
    smooth = _smoothed(image.astype(np.float64), sigma)
    height, width = image.shape[:2]
    number = np.arange(height * width).reshape(height, width)
    pairs, weights = [], []
    for a, b in (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1], np.s_[1:]),
        (np.s_[:-1, :-1], np.s_[1:, 1:]),
        (np.s_[1:, :-1], np.s_[:-1, 1:]),
    ):
        pairs.append(np.stack([number[a].ravel(), number[b].ravel()], axis=1))
        weights.append(np.sqrt(((smooth[a] - smooth[b]) ** 2).sum(-1)).ravel())
    weight = np.concatenate(weights)
    order = np.argsort(weight, kind="stable")
    edges, weight = np.concatenate(pairs)[order].tolist(), weight[order].tolist()
    parent, size, limit = list(range(number.size)), [1] * number.size, [scale] * number.size

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    def join(a: int, b: int, largest: float) -> None:
        a, b = (a, b) if size[a] >= size[b] else (b, a)
        parent[b] = a
        size[a] += size[b]
        limit[a] = largest + scale / size[a]

    for (a, b), difference in zip(edges, weight, strict=True):
        a, b = root(a), root(b)
        if a != b and difference <= min(limit[a], limit[b]):
            join(a, b, difference)
    for a, b in edges:
        a, b = root(a), root(b)
        if a != b and min(size[a], size[b]) < least:
            join(a, b, 0.0)
    roots = np.array([root(node) for node in range(number.size)])
    return np.unique(roots, return_inverse=True)[1].reshape(height, width).astype(np.int32)


def selective_search(
    image: np.ndarray,
    scales: Sequence[float] = (50.0, 100.0),
    *,
    sigma: float = 0.8,
    least: int = 20,
    least_side: int = 4,
    count: int = 2000,
) -> np.ndarray:
    """Return boxes of a picture that may hold an object, float32 [n, 4], no two alike.

    Args:
        image: uint8 [height, width, channels].
        scales: of the segments that grouping starts from; the boxes of all are returned.
        sigma, least: see `segments`.
        least_side: the least width and height of a box, in pixels.
        count: how many boxes to return, at most; those of larger groups come first.

    Raises:
        InputError: the image has not three axes.
    """
    groups = [
        box
        for scale in scales
        for box in _grouped(image, segments(image, scale, sigma=sigma, least=least))
    ]
    boxes = np.array(groups, np.float32).reshape(-1, 4)
    boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) >= least_side).all(axis=1)]
    _, first = np.unique(boxes, axis=0, return_index=True)
    boxes = boxes[np.sort(first)]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return boxes[np.argsort(-areas, kind="stable")[:count]]


@dataclasses.dataclass
class _Group:
    size: float
    box: np.ndarray
    colour: np.ndarray
    texture: np.ndarray

    def joined(self, other: "_Group") -> "_Group":
        size = self.size + other.size
        low, high = np.minimum(self.box[:2], other.box[:2]), np.maximum(self.box[2:], other.box[2:])
        share = self.size / size
        return _Group(
            size,
            np.concatenate([low, high]),
            share * self.colour + (1 - share) * other.colour,
            share * self.texture + (1 - share) * other.texture,
        )

    def likeness(self, other: "_Group", pixels: int) -> float:
        both = self.joined(other)
        hull = (both.box[2:] - both.box[:2]).prod()
        colour = np.minimum(self.colour, other.colour).sum()
        texture = np.minimum(self.texture, other.texture).sum()
        return colour + texture + 2 - both.size / pixels - (hull - both.size) / pixels


def _grouped(image: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Return the boxes of all segments and of their groups."""
    groups = dict(enumerate(_first_groups(image, labels)))
    boxes = [group.box for group in groups.values()]
    pairs = np.concatenate(
        [
            np.stack([labels[:, :-1].ravel(), labels[:, 1:].ravel()], axis=1),
            np.stack([labels[:-1].ravel(), labels[1:].ravel()], axis=1),
        ]
    )
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
    like = {(a, b): groups[a].likeness(groups[b], labels.size) for a, b in pairs.tolist()}
    while like:
        a, b = max(like, key=lambda pair: like[pair])
        new = len(boxes)
        touched = [pair for pair in like if a in pair or b in pair]
        neighbours = {each for pair in touched for each in pair} - {a, b}
        for pair in touched:
            del like[pair]
        groups[new] = groups.pop(a).joined(groups.pop(b))
        boxes.append(groups[new].box)
        for each in neighbours:
            like[each, new] = groups[each].likeness(groups[new], labels.size)
    return boxes


def _first_groups(image: np.ndarray, labels: np.ndarray) -> list[_Group]:
    count, flat = int(labels.max()) + 1, labels.ravel()
    size = np.bincount(flat, minlength=count).astype(float)
    y, x = (each.ravel() for each in np.mgrid[: labels.shape[0], : labels.shape[1]])
    boxes = np.empty((count, 4))
    for column, (at, ends) in enumerate(((x, np.minimum), (y, np.minimum))):
        boxes[:, column] = np.inf
        ends.at(boxes[:, column], flat, at)
    for column, at in ((2, x), (3, y)):
        boxes[:, column] = 0
        np.maximum.at(boxes[:, column], flat, at + 1)
    colours = _hsv(image) if image.shape[-1] == 3 else image / 255.0
    smooth = _smoothed(image / 255.0, 1.0)
    down, across = np.gradient(smooth, axis=(0, 1))
    slopes = [np.maximum(np.cos(angle) * across + np.sin(angle) * down, 0) for angle in _DIRECTIONS]
    texture = np.concatenate(slopes, axis=-1)
    texture = texture / np.maximum(texture.max(axis=(0, 1), keepdims=True), 1e-12)
    colour = _histograms(colours, flat, count, _COLOUR_BINS)
    textures = _histograms(texture, flat, count, _TEXTURE_BINS)
    return [_Group(*each) for each in zip(size, boxes, colour, textures, strict=True)]


def _histograms(values: np.ndarray, flat: np.ndarray, count: int, bins: int) -> np.ndarray:
    """Return a histogram of values in [0, 1] of each segment, over all channels, of sum 1."""
    values = values.reshape(len(flat), -1)
    place = np.minimum((values * bins).astype(int), bins - 1)
    found = [
        np.bincount(flat * bins + channel, minlength=count * bins).reshape(count, bins)
        for channel in place.T
    ]
    found = np.concatenate(found, axis=1).astype(float)
    return found / found.sum(axis=1, keepdims=True)


def _hsv(image: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(image / 255.0, -1, 0)
    most, least = image.max(-1) / 255.0, image.min(-1) / 255.0
    spread = np.where(most > least, most - least, 1)
    hue = np.where(most == red, (green - blue) / spread % 6, (red - green) / spread + 4)
    hue = np.where((most == green) & (most != red), (blue - red) / spread + 2, hue)
    hue = np.where(most > least, hue / 6, 0)
    return np.stack(
        [hue, np.where(most > 0, (most - least) / np.maximum(most, 1e-12), 0), most], -1
    )


def _smoothed(image: np.ndarray, sigma: float) -> np.ndarray:
    if not sigma:
        return image
    reach = int(np.ceil(4 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        pads = [(reach, reach) if each == axis else (0, 0) for each in range(3)]
        padded = np.pad(image, pads, "edge")
        size = image.shape[axis]
        image = np.zeros(image.shape)
        for start, share in enumerate(kernel):
            image += share * padded.take(range(start, start + size), axis)
    return image
