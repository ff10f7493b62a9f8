"""Pictures with a class for every pixel: a folder of pictures and one of masks of the same names.

    cells/images/1.jpg, cells/masks/1.png, …                                split by a share
    cells/images/train/1.jpg, cells/masks/train/1.png, …, …/test/9.png      a folder a split

================================  =============================================================
mask                              classes
================================  =============================================================
grey, palette, 8 or 16 bits       the numbers themselves; 255 is ignored
black and white, 0 and 255 alone  0 and 1: in a set of such masks 255 is no ignored pixel
colour                            by a table of colours; without one, only greys are taken
================================  =============================================================

A palette is never turned into colours and back, and masks are resized to the nearest pixel, which
makes no new numbers. `nuclei_records` reads a folder a picture with one mask an object.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnlab.errors import InputError
from nnlab.paths import reading, user_path
from nnlab.vision.datasets.labelled import share_of
from nnlab.vision.pictures import Resize, is_picture, opened, picture_shape, read_picture

IGNORE = 255
Colours = Mapping[tuple[int, int, int], int]
_TESTS = ("test", "val", "valid", "validation")


def read_mask(path: str | os.PathLike[str], colours: Colours | None = None) -> np.ndarray:
    """Read the numbers of the pixels of a mask, integers [height, width], upright.

    Args:
        path: an image file.
        colours: the number of each colour (red, green, blue); another colour is an error.

    Raises:
        InputError: it cannot be read, or its colours are none of the table.
    """
    with opened(path) as picture:
        from PIL import ImageOps

        picture = ImageOps.exif_transpose(picture)
        indexed = picture.mode == "P" and colours is None
        if picture.mode == "P" and not indexed:
            picture = picture.convert("RGB")
        values = np.asarray(picture)
        if picture.mode in ("LA", "La"):
            values = values[..., 0]
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.ndim == 2 and colours is None:
        if not np.issubdtype(values.dtype, np.integer):
            raise InputError(f"{path} holds {values.dtype} pixels, expected integers.")
        return values
    values = (values if values.ndim == 3 else values[..., None].repeat(3, -1))[..., :3]
    if colours is None:
        if (values != values[..., :1]).any():
            raise InputError(f"{path} is in colour, expected numbers of classes, or colours=.")
        return values[..., 0]
    return _by_colour(values, colours, path)


def _by_colour(values: np.ndarray, colours: Colours, path: Any) -> np.ndarray:
    packed = values.astype(np.int64) @ [65536, 256, 1]
    known = {red * 65536 + green * 256 + blue: c for (red, green, blue), c in colours.items()}
    found, places = np.unique(packed, return_inverse=True)
    if unknown := [int(each) for each in found if int(each) not in known]:
        colour = unknown[0] >> 16, unknown[0] >> 8 & 255, unknown[0] & 255
        raise InputError(f"{path} has a pixel of colour {colour}, which the table lacks.")
    return np.array([known[int(each)] for each in found])[places].reshape(packed.shape)


def resized_mask(mask: np.ndarray, resize: Resize, fill: int = IGNORE) -> np.ndarray:
    """Return a mask [height, width] at the size of a picture, each pixel that of its middle.

    Args:
        mask: integers.
        resize: as for the picture.
        fill: what lies outside of the mask, where the picture is padded.
    """
    placed = resize.placed(*mask.shape)
    rows, inside = _sources(resize.height, mask.shape[0], placed.down, placed.top)
    columns, across = _sources(resize.width, mask.shape[1], placed.across, placed.left)
    found = mask[rows[:, None], columns[None]]
    return np.where(inside[:, None] & across[None], found, np.asarray(fill, mask.dtype))


def restored_mask(
    mask: np.ndarray, resize: Resize, shape: tuple[int, int], fill: int = IGNORE
) -> np.ndarray:
    """Return what is said of a resized picture at the picture's own size, [height, width].

    Args:
        mask: integers [height, width], at the size of `resize`.
        resize: how the picture got that size.
        shape: height and width of the picture.
        fill: what is said of pixels that were cut off.
    """
    placed, limits = resize.placed(*shape), mask.shape
    at = [
        np.floor((np.arange(size) + 0.5) * scale + start).astype(int)
        for size, scale, start in zip(shape, placed[:2], placed[2:], strict=True)
    ]
    inside = [(each >= 0) & (each < most) for each, most in zip(at, limits, strict=True)]
    rows, columns = (each.clip(0, most - 1) for each, most in zip(at, limits, strict=True))
    found = mask[rows[:, None], columns[None]]
    return np.where(inside[0][:, None] & inside[1][None], found, np.asarray(fill, mask.dtype))


def _sources(new: int, old: int, scale: float, start: float) -> tuple[np.ndarray, np.ndarray]:
    """Return which of `old` pixels each of `new` ones shows, and whether it shows any."""
    at = np.floor((np.arange(new) + 0.5 - start) / scale).astype(int)
    return at.clip(0, old - 1), (at >= 0) & (at < old)


@dataclasses.dataclass(frozen=True)
class MaskRecords:
    """Pictures with masks that stay on disk; a record is an image and its mask.

    Attributes:
        files: paths of the pictures.
        masks: paths of the masks of each; of several, pixels of any are 1 and others 0.
        class_names: names of the classes.
        shape: of every image, [height, width, channels].
        resize: how pictures and masks get their size, or None if they have it.
        binary: whether masks are black and white: what is not 0 is 1.
        colours: the table of colours, or None.
    """

    files: tuple[str, ...]
    masks: tuple[tuple[str, ...], ...]
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    resize: Resize | None = None
    binary: bool = False
    colours: Colours | None = None

    @property
    def classes(self) -> int:
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an image, uint8 of `shape`, and its mask, uint8 [height, width].

        Raises:
            InputError: a file cannot be read, is cut off, has changed its size, or holds a class
                that there is not.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        image = read_picture(self.files[index], self.shape[-1], self.resize)
        mask = self._mask(index)
        if self.resize is not None:
            mask = resized_mask(mask, self.resize)
        if image.shape != self.shape or mask.shape != self.shape[:2]:
            raise InputError(
                f"{self.files[index]} and its mask are of sizes {list(image.shape[:2])} and "
                f"{list(mask.shape)}, expected {list(self.shape[:2])}."
            )
        wrong = (mask >= self.classes) & (mask != IGNORE)
        if wrong.any():
            raise InputError(
                f"{self.masks[index][0]} has a pixel of class {mask[wrong][0]}, expected 0 to "
                f"{self.classes - 1}, or {IGNORE} for ignored ones."
            )
        return image, mask.astype(np.uint8)

    def _mask(self, index: int) -> np.ndarray:
        masks = self.masks[index]
        if not self.binary:
            return read_mask(masks[0], self.colours)
        if not masks:
            return np.zeros(picture_shape(self.files[index])[:2], np.uint8)
        mask = read_mask(masks[0]) > 0
        for more in masks[1:]:
            mask = mask | (read_mask(more) > 0)
        return mask.astype(np.uint8)

    def instances(self, index: int) -> np.ndarray:
        """Return the number of the object of each pixel from 1, or 0, int32 [height, width].

        An object is what a file of several shows; where they overlap, the last one is seen. It has
        the size of the file.
        """
        found = np.zeros(picture_shape(self.files[index])[:2], np.int32)
        for number, file in enumerate(self.masks[index], start=1):
            found[read_mask(file) > 0] = number
        return found

    def gather(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return several records at once, images [n, *shape] and masks [n, height, width]."""
        images = np.empty((len(indices), *self.shape), np.uint8)
        masks = np.empty((len(indices), *self.shape[:2]), np.uint8)
        for place, index in enumerate(indices):
            images[place], masks[place] = self[int(index)]
        return images, masks


def mask_records(
    path: str | os.PathLike[str],
    *,
    resize: Resize | None = None,
    class_names: Sequence[str] | None = None,
    colours: Colours | None = None,
    images: str = "images",
    masks: str = "masks",
    test_share: float = 0.2,
    seed: int = 0,
) -> list[MaskRecords]:
    """Open pictures with masks of the same names, to train and to test on; masks are read once.

    Args:
        path: the folder.
        resize: the size to bring both to; by default their own, which must be one.
        class_names: names of all classes in their order; by default there are as many as the
            largest number in a mask, with their numbers as names.
        colours: the class of each colour (red, green, blue), for masks in colour.
        images, masks: names of the folders.
        test_share: the part of the pictures to test on, where there are no folders of splits.
        seed: draws it.

    Raises:
        InputError: there is no folder or picture, a picture lacks its mask or has another size, or
            masks cannot be read or hold a class that there is not.
    """
    root = user_path(path)
    with reading(root):
        for name in (images, masks):
            if not (root / name).is_dir():
                raise InputError(
                    f"there is no folder {root / name}, expected {images} and {masks}."
                )
        tests = [name for name in _TESTS if (root / images / name).is_dir()]
        if (root / images / "train").is_dir() and tests:
            pairs = [(root / images / split, root / masks / split) for split in ("train", tests[0])]
            parts = [_pairs(*pair) for pair in pairs]
        else:
            parts = _held_out(_pairs(root / images, root / masks), test_share, seed)
    values: set[int] = set()
    for file, [mask] in (each for part in parts for each in part):
        found, shape = read_mask(mask, colours), picture_shape(file)
        if found.shape != shape[:2]:
            raise InputError(
                f"{mask} is {found.shape[1]} by {found.shape[0]} pixels and {file} {shape[1]} by "
                f"{shape[0]}, expected the same."
            )
        values |= set(np.unique(found).tolist())
        largest = IGNORE if class_names is None else len(class_names) - 1
        if wrong := [each for each in values if each > largest and each != IGNORE]:
            raise InputError(
                f"{mask} has a pixel of class {wrong[0]}, expected 0 to {largest}, or {IGNORE} for "
                "ignored ones."
            )
    binary = values == {0, IGNORE} and colours is None
    if class_names is None:
        most = 1 if binary else max(values - {IGNORE}, default=0)
        class_names = [str(number) for number in range(most + 1)]
    return _records(parts, class_names, resize, binary, colours)


def nuclei_records(
    path: str | os.PathLike[str],
    *,
    splits: Sequence[Sequence[str]] | None = None,
    resize: Resize | None = None,
    class_names: Sequence[str] = ("background", "object"),
    test_share: float = 0.2,
    seed: int = 0,
) -> list[MaskRecords]:
    """Open the form of the 2018 Data Science Bowl: ID/images/ID.png, and a mask of each object.

    Args:
        path: the folder that holds a folder for each picture.
        splits: the folders' names of each split; by default a share is drawn to test on.
        resize: the size to bring both to; by default their own, which must be one.
        class_names: names of 0 and 1.
        test_share, seed: as for `mask_records`.

    Raises:
        InputError: there is no folder, or not one picture in it.
    """
    root = user_path(path)

    def pair(name: str) -> tuple[Path, list[Path]]:
        found = [
            sorted(file for file in (root / name / kind).glob("*") if is_picture(file))
            for kind in ("images", "masks")
        ]
        if len(found[0]) != 1:
            raise InputError(f"{root / name}/images holds {len(found[0])} pictures, expected one.")
        return found[0][0], found[1]

    with reading(root):
        if not root.is_dir():
            raise InputError(f"there is no folder {root}, expected one with a folder a picture.")
        if splits is None:
            names = sorted(each.name for each in root.iterdir() if each.is_dir())
            parts = _held_out([pair(name) for name in names], test_share, seed)
        else:
            parts = [[pair(name) for name in split] for split in splits]
    return _records(parts, class_names, resize, True, None)


Pair = tuple[Path, list[Path]]


def _pairs(images: Path, masks: Path) -> list[Pair]:
    by_stem = {file.stem: file for file in sorted(masks.iterdir()) if is_picture(file)}
    files = [file for file in sorted(images.iterdir()) if is_picture(file)]
    if not files:
        raise InputError(f"{images} holds no pictures, expected some.")
    if lacking := [file for file in files if file.stem not in by_stem]:
        raise InputError(f"{lacking[0]} has no mask in {masks}, expected one of its name.")
    return [(file, [by_stem[file.stem]]) for file in files]


def _held_out(pairs: list[Pair], share: float, seed: int) -> list[list[Pair]]:
    train, test = share_of(len(pairs), share, seed)
    return [[pairs[number] for number in part] for part in (train, test)]


def _records(
    parts: Sequence[Sequence[Pair]],
    class_names: Sequence[str],
    resize: Resize | None,
    binary: bool,
    colours: Colours | None,
) -> list[MaskRecords]:
    shapes = {file: picture_shape(file) for part in parts for file, _ in part}
    if not all(parts):
        raise InputError("a split has no picture, expected at least one in each.")
    first, (height, width, _) = next(iter(shapes.items()))
    for file, shape in shapes.items() if resize is None else ():
        if shape[:2] != (height, width):
            raise InputError(
                f"{file} is {shape[1]} by {shape[0]} pixels and {first} {width} by {height}, "
                "expected one size; resize brings them to one."
            )
    if resize is not None:
        height, width, _ = resize
    shape = height, width, max(each.channels for each in shapes.values())
    return [
        MaskRecords(
            tuple(str(file) for file, _ in part),
            tuple(tuple(map(str, masks)) for _, masks in part),
            *(tuple(class_names), shape, resize, binary, colours),
        )
        for part in parts
    ]
