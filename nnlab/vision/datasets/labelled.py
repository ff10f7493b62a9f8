"""Pictures with boxes, whatever file the boxes come from: checked, cleaned, padded to one shape.

Boxes are corners (x1, y1, x2, y2) in pixels, with x2 − x1 as the width. What real files hold:

=====================================  ========================================================
box                                    becomes
=====================================  ========================================================
without width or height, or swapped    dropped, and counted as degenerate
wholly outside of its picture          dropped, and counted as outside
partly outside                         cut off at the border, and counted as cut
not a number                           an error
=====================================  ========================================================

A picture without boxes is one to learn background from. Where EXIF says that a picture lies on its
side and its boxes were drawn so, which the size beside them tells, they are turned with it.
"""

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nnlab.errors import InputError
from nnlab.vision.pictures import (
    Resize,
    Shape,
    picture_orientation,
    picture_shape,
    read_picture,
    reason,
)

_SHOWN = 3  # files that an error names


class Drawn(NamedTuple):
    """A picture and its boxes, as a file of annotations has them.

    Attributes:
        file: the picture.
        boxes: corners in pixels, or parts of the picture's sides if `relative`; float64 [n, 4].
        classes: integers [n].
        difficult: bool [n]: difficult ones of VOC, crowds of COCO.
        size: height and width that the file of annotations tells, or None.
        relative: whether boxes are parts of the sides.
        source: where they come from, for errors.
    """

    file: Path
    boxes: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray
    size: tuple[int, int] | None
    relative: bool
    source: str


class Dropped(NamedTuple):
    """How many boxes of a split were not as they should be, and how many pictures were left out.

    Attributes:
        degenerate, outside: boxes that were dropped.
        cut: boxes that were cut off at the border.
        pictures: that cannot be read.
    """

    degenerate: int = 0
    outside: int = 0
    cut: int = 0
    pictures: int = 0


class Boxes(NamedTuple):
    """Objects of one picture, or [n, ...] of several; padding is at the end.

    Attributes:
        boxes: corners in pixels, float32 [most, 4]; 0 in padding.
        classes: int32 [most], from 0; background is none of them.
        mask: bool [most], which are there.
        difficult: bool [most], which of them are difficult or a crowd.
    """

    boxes: np.ndarray
    classes: np.ndarray
    mask: np.ndarray
    difficult: np.ndarray


@dataclasses.dataclass(frozen=True)
class BoxRecords:
    """Pictures with boxes that stay on disk; a record is an image and its `Boxes`.

    Attributes:
        files: paths of the pictures.
        boxes: of each, at the size that it is brought to, without padding.
        class_names: names of the classes.
        shape: of every image, [height, width, channels].
        most: boxes of a record, with padding.
        resize: how pictures get their size, or None if they have it.
        dropped: what was not as it should be.
    """

    files: tuple[str, ...]
    boxes: tuple[Boxes, ...]
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    most: int
    resize: Resize | None = None
    dropped: Dropped = dataclasses.field(default=Dropped())

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def counts(self) -> np.ndarray:
        """Boxes of each class, int64 [classes]; 0 where the split lacks one."""
        labels = [np.zeros(0, np.int32), *(each.classes for each in self.boxes)]
        return np.bincount(np.concatenate(labels), minlength=self.classes)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Boxes]:
        """Return an image, uint8 of `shape`, and its padded boxes.

        Raises:
            InputError: the file cannot be read any more, is cut off, or has changed its size.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        image = read_picture(self.files[index], self.shape[-1], self.resize)
        if image.shape != self.shape:
            raise InputError(
                f"{self.files[index]} is {image.shape[1]} by {image.shape[0]} pixels, expected "
                f"{self.shape[1]} by {self.shape[0]}, as when it was opened."
            )
        return image, padded(self.boxes[index], self.most)

    def gather(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, Boxes]:
        """Return several records at once, images [n, *shape] and boxes [n, most, ...]."""
        images = np.empty((len(indices), *self.shape), np.uint8)
        boxes = []
        for place, index in enumerate(indices):
            images[place], some = self[int(index)]
            boxes.append(some)
        return images, Boxes(*(np.stack(parts) for parts in zip(*boxes, strict=True)))


def padded(boxes: Boxes, most: int) -> Boxes:
    """Return boxes [n, ...] with padding to `most`.

    Raises:
        InputError: there are more.
    """
    lacking = most - len(boxes.mask)
    if lacking < 0:
        raise InputError(f"a picture has {len(boxes.mask)} boxes, expected at most {most}.")
    return Boxes(*(np.pad(each, [(0, lacking)] + [(0, 0)] * (each.ndim - 1)) for each in boxes))


def box_records(
    splits: Sequence[Sequence[Drawn]],
    class_names: Sequence[str],
    resize: Resize | None = None,
    *,
    skip_unreadable: bool = False,
) -> list[BoxRecords]:
    """Check and clean the boxes of splits, and bring them to the size of the images.

    Args:
        splits: pictures of each split.
        class_names: names of the classes.
        resize: the size to bring pictures to; by default their own, which must be one.
        skip_unreadable: leave out pictures that cannot be read, and say so on standard error;
            each is then read once, whole.

    Returns:
        Records of each split; all have the channels and the padding of the largest.

    Raises:
        InputError: a split is empty; or pictures cannot be read, or are of another size than their
            boxes were drawn in, or of different sizes without `resize`; or boxes are no numbers or
            of no class.
    """
    faults: dict[Path, str] = {}
    opened = [[_opened(drawn, faults, skip_unreadable) for drawn in split] for split in splits]
    if faults:
        shown = [f"{file} {why}" for file, why in sorted(faults.items())[:_SHOWN]]
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        count = f"{len(faults)} picture{'s' * (len(faults) > 1)}"
        said = f"{count} cannot be read: {', '.join(shown)}{more}"
        if not skip_unreadable:
            raise InputError(f"{said}; skip_unreadable leaves such files out.")
        print(f"Left out: {said}.", file=sys.stderr, flush=True)
    kept = [[each for each in split if each is not None] for split in opened]
    if not all(kept):
        raise InputError("a split has no picture, expected at least one in each.")
    every = [each for split in kept for each in split]
    channels = max(shape.channels for _, shape, _ in every)
    first, (height, width, _), _ = every[0]
    for drawn, shape, _ in every if resize is None else ():
        if shape[:2] != (height, width):
            raise InputError(
                f"{drawn.file} is {shape[1]} by {shape[0]} pixels and {first.file} {width} by "
                f"{height}, expected one size; resize brings them to one."
            )
    if resize is not None:
        height, width, _ = resize
    cleaned = [[_cleaned(*each, len(class_names), resize) for each in split] for split in kept]
    most = max(1, *(len(boxes.mask) for split in cleaned for boxes, _ in split))
    return [
        BoxRecords(
            tuple(str(drawn.file) for drawn, _, _ in split),
            tuple(boxes for boxes, _ in clean),
            tuple(class_names),
            (height, width, channels),
            most,
            resize,
            Dropped(
                *(int(sum(counts[kind] for _, counts in clean)) for kind in range(3)),
                pictures=sum(drawn.file in faults for drawn in own),
            ),
        )
        for split, clean, own in zip(kept, cleaned, splits, strict=True)
    ]


def _opened(drawn: Drawn, faults: dict[Path, str], whole: bool) -> tuple[Drawn, Shape, int] | None:
    """Return a picture with its shape and orientation, or None and why in `faults`."""
    try:
        shape = picture_shape(drawn.file)
        if whole:
            read_picture(drawn.file)
        return drawn, shape, picture_orientation(drawn.file)
    except InputError as error:
        faults[drawn.file] = reason(error, drawn.file)
        return None


def _cleaned(
    drawn: Drawn, shape: Shape, orientation: int, classes: int, resize: Resize | None
) -> tuple[Boxes, np.ndarray]:
    """Return the boxes of a picture at its new size, and how many were degenerate, outside, cut."""
    height, width, _ = shape
    boxes = np.asarray(drawn.boxes, np.float64).reshape(-1, 4)
    labels = np.asarray(drawn.classes, np.int64)
    if not np.isfinite(boxes).all():
        wrong = boxes[~np.isfinite(boxes).all(1)][0].tolist()
        raise InputError(f"{drawn.source} has the box {wrong}, expected four finite numbers.")
    if ((labels < 0) | (labels >= classes)).any():
        wrong = labels[(labels < 0) | (labels >= classes)][0]
        raise InputError(
            f"{drawn.source} has a box of class {wrong}, expected 0 to {classes - 1}; background "
            "is no class."
        )
    real = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)  # before they are turned
    if drawn.size is not None and drawn.size != (height, width):
        if drawn.size != (width, height) or orientation < 5:
            raise InputError(
                f"{drawn.source} is for a picture of {drawn.size[1]} by {drawn.size[0]} pixels, but"
                f" {drawn.file} has {width} by {height}."
            )
        boxes = _turned(boxes, *drawn.size, orientation)
    if drawn.relative:
        boxes = boxes * [width, height, width, height]
    inside, cut = _within(boxes, height, width)
    counts = np.array([(~real).sum(), (real & ~inside).sum(), (real & inside & cut).sum()])
    boxes = boxes.clip(0, [width, height, width, height])
    if resize is not None:
        boxes = resize.placed(height, width).move(boxes)
        still, cropped = _within(boxes, resize.height, resize.width)
        counts[1] += (real & inside & ~still).sum()
        counts[2] += (real & inside & still & cropped & ~cut).sum()
        boxes = boxes.clip(0, [resize.width, resize.height] * 2)
        inside &= still
    kept = real & inside
    return (
        Boxes(
            boxes[kept].astype(np.float32),
            labels[kept].astype(np.int32),
            np.ones(kept.sum(), bool),
            np.asarray(drawn.difficult, bool)[kept],
        ),
        counts,
    )


def _within(boxes: np.ndarray, height: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Return which boxes are in a picture at all, and which of all would be cut."""
    limits = np.array([width, height])
    inside = np.concatenate([boxes[:, 2:] > 0, boxes[:, :2] < limits], axis=1).all(axis=1)
    slack = 1e-6 * limits  # of rounding
    over = [boxes[:, :2] < -slack, boxes[:, 2:] > limits + slack]
    return np.asarray(inside), np.asarray(np.concatenate(over, axis=1).any(axis=1))


def _turned(boxes: np.ndarray, height: int, width: int, orientation: int) -> np.ndarray:
    """Return boxes of a stored picture of this size in the upright one, of orientation 5 to 8."""
    x, y = boxes[:, ::2], boxes[:, 1::2]
    x, y = {
        5: (y, x),
        6: (height - y, x),
        7: (height - y, width - x),
        8: (y, width - x),
    }[orientation]
    x, y = np.sort(x, axis=1), np.sort(y, axis=1)
    return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)


def hold_out_pictures(
    pictures: Sequence[Drawn], test_share: float, seed: int
) -> tuple[list[Drawn], list[Drawn]]:
    """Return pictures to train on and a share to test on, as `share_of` draws it."""
    train, test = share_of(len(pictures), test_share, seed)
    return [pictures[number] for number in train], [pictures[number] for number in test]


def share_of(pictures: int, test_share: float, seed: int) -> tuple[list[int], list[int]]:
    """Return the numbers of pictures to train on and to test on, in order, at least one of each.

    Raises:
        InputError: the share is not between 0 and 1, or there are fewer than two pictures.
    """
    if not 0 < test_share < 1:
        raise InputError(f"the share to test on is {test_share}, expected between 0 and 1.")
    if pictures < 2:
        raise InputError(f"there are {pictures} pictures, expected at least two.")
    held = min(max(round(test_share * pictures), 1), pictures - 1)
    order = np.random.default_rng(seed).permutation(pictures)
    return sorted(order[held:].tolist()), sorted(order[:held].tolist())


def numbered(names: Iterable[str], given: Sequence[str] | None, source: object) -> dict[str, int]:
    """Return the number of each class by its name: in the order given, or of the names.

    Raises:
        InputError: there is no name, or one is not among those given.
    """
    found = sorted(set(names))
    if given is None:
        given = found
    if unknown := [name for name in found if name not in given]:
        raise InputError(
            f"{source} has boxes of the class {unknown[0]!r}, expected one of {', '.join(given)}."
        )
    if not given:
        raise InputError(f"{source} has no boxes, expected some, or class_names.")
    return {name: number for number, name in enumerate(given)}
