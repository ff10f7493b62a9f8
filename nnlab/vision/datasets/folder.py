"""A folder of pictures as a data set: one folder a class, its name that of the class.

    flowers/daisy/1.jpg, flowers/rose/1.png, …                      split by a share
    flowers/train/daisy/1.jpg, …, flowers/test/daisy/9.jpg, …       split as it is

Classes are numbered in the order of their names. A folder that holds `train` and one of `test`,
`val`, `valid` and `validation` (the first of these that is there) is split already. Any other is
split class by class: pictures in the order of their names, drawn by a seed, a share of them for
testing but at least one, and at least one to train on.

All pictures have one number of channels: one where every file is grey, otherwise three. They have
one size, their own if it is the same in all files, or the one that they are brought to. Hidden
files are passed over. All others that are no pictures are one error, or are left out if asked to,
which is then said; a folder in a class is an error.
"""

import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from nnlab.errors import InputError
from nnlab.paths import reading, user_path
from nnlab.vision.datasets.dataset import Dataset, Split
from nnlab.vision.pictures import Resize, Shape, is_picture, picture_shape, read_picture, reason

TEST_SHARE = 0.2
_TESTS = ("test", "val", "valid", "validation")
_LITTER = ("thumbs.db", "desktop.ini")
_SHOWN = 3  # files that an error names

Read = TypeVar("Read")


class Listing(NamedTuple):
    """The files of a folder: what there is, by split, with nothing of it read.

    Attributes:
        class_names: names of the classes, in order.
        train, test: (file, class) of each picture, class by class, in the order of their names.
    """

    class_names: tuple[str, ...]
    train: list[tuple[Path, int]]
    test: list[tuple[Path, int]]


class Unreadable(InputError):
    """Files of a folder are no pictures, or damaged.

    Attributes:
        files: all of them, and what is wrong with each.
    """

    def __init__(self, folder: Path, files: dict[Path, str]):
        self.files = files
        super().__init__(
            f"{_unreadable(folder, files, 'cannot be used')}; `nnlab data check {folder}` lists "
            "what is wrong, --skip-unreadable leaves such files out."
        )


def _unreadable(folder: Path, files: dict[Path, str], what: str) -> str:
    shown = [f"{file.relative_to(folder)} {why}" for file, why in sorted(files.items())[:_SHOWN]]
    rest = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    count = f"{len(files)} file{'s' * (len(files) > 1)}"
    return f"{count} in {folder} {what}: {', '.join(shown)}{rest}"


def list_folder(
    path: str | os.PathLike[str],
    test_share: float = TEST_SHARE,
    seed: int = 0,
    *,
    without: Collection[Path] = (),
) -> Listing:
    """Find the pictures below a folder and their classes.

    Args:
        path: the folder.
        test_share: the part of each class to test on, unless the folder is split already.
        seed: draws these.
        without: files below it to leave out.

    Raises:
        InputError: it is no folder, has fewer than two classes, or a class is empty or too small
            to be split, or holds something else than pictures (`Unreadable` of files); or the two
            splits have other classes. The file or folder is named.
    """
    path, faults = user_path(path), {}
    if not 0 < test_share < 1:
        raise InputError(f"the share to test on is {test_share}, expected between 0 and 1.")
    with reading(path):
        if not path.is_dir():
            raise InputError(f"there is no folder {path}, expected one with a folder a class.")
        found = {folder.name: folder for folder in _entries(path) if folder.is_dir()}
        tests = [name for name in _TESTS if name in found]
        if "train" in found and tests:
            train = _classes(found["train"], without, faults)
            test = _classes(found[tests[0]], without, faults, least=1)
            if faults:
                raise Unreadable(path, faults)
            if unknown := test.keys() - train.keys():
                raise InputError(
                    f"{found[tests[0]] / min(unknown)} is of a class that {found['train']} lacks, "
                    f"expected one of {', '.join(train)}."
                )
            numbers = {name: number for number, name in enumerate(train)}
            train, test = (
                [(file, numbers[name]) for name, files in split.items() for file in files]
                for split in (train, test)
            )
            return Listing(tuple(numbers), train, test)
        classes = _classes(path, without, faults)
    if faults:
        raise Unreadable(path, faults)
    train, test = [], []
    for number, (name, files) in enumerate(classes.items()):
        if len(files) < 2:
            raise InputError(
                f"{path / name} holds only {files[0].name}; expected a picture to train on and one "
                "to test on in each class."
            )
        held_out = min(max(round(test_share * len(files)), 1), len(files) - 1)
        order = np.random.default_rng([seed, number]).permutation(len(files))
        for into, some in ((test, order[:held_out]), (train, order[held_out:])):
            into += [(files[i], number) for i in sorted(some)]
    return Listing(tuple(classes), train, test)


def _entries(folder: Path) -> list[Path]:
    names = sorted(os.listdir(folder))
    return [folder / n for n in names if not n.startswith(".") and n.lower() not in _LITTER]


def _classes(
    folder: Path, without: Collection[Path], faults: dict[Path, str], least: int = 2
) -> dict[str, list[Path]]:
    """Return the files of each class of a folder, and add to `faults` those that are none."""
    classes: dict[str, list[Path]] = {}
    for entry in _entries(folder):
        if entry in without:
            continue
        if not entry.is_dir():
            faults[entry] = "lies beside the folders of classes"
            continue
        files = [file for file in _entries(entry) if file not in without]
        for file in files:
            if file.is_dir():
                raise InputError(f"{file} is a folder within a class, expected pictures alone.")
            if not is_picture(file):
                faults[file] = "is not PNG, JPEG or another format"
        if not files:
            raise InputError(f"{entry} is an empty class, expected pictures in it.")
        classes[entry.name] = files
    if len(classes) < least:
        held = f"the class {next(iter(classes))} alone" if classes else "no class"
        raise InputError(f"{folder} holds {held}, expected at least two folders, one a class.")
    return classes


@dataclasses.dataclass(frozen=True)
class FolderRecords:
    """Pictures that stay on disk; `nnlab.vision.datasets.dataset.Records` says what it does.

    Attributes:
        files: paths of the pictures.
        labels: their classes.
        class_names: names of the classes.
        shape: of every image, [height, width, channels].
        resize: how pictures get that size, or None if they have it.
    """

    files: tuple[str, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    resize: Resize | None = None

    @property
    def classes(self) -> int:
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Raises `InputError` where a file cannot be read any more or has changed its size."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        image = read_picture(self.files[index], self.shape[-1], self.resize)
        if image.shape != self.shape:
            raise _of_another_size(self.files[index], image.shape, self.shape)
        return image, self.labels[index]

    def gather(self, indices: Sequence[int] | np.ndarray) -> Split:
        images = np.empty((len(indices), *self.shape), np.uint8)
        labels = np.empty(len(indices), np.int32)
        for place, index in enumerate(indices):
            images[place], labels[place] = self[int(index)]
        return Split(images, labels)


def folder_records(
    path: str | os.PathLike[str],
    split: str = "train",
    *,
    resize: Resize | None = None,
    test_share: float = TEST_SHARE,
    seed: int = 0,
    skip_unreadable: bool = False,
) -> FolderRecords:
    """Open a split of a folder of pictures; only the header of each file is read.

    Args:
        path, test_share, seed: as for `list_folder`.
        split: `train` or `test`.
        resize: the size to bring pictures to; by default their own, which must be one.
        skip_unreadable: leave out files that are no pictures, and say so on standard error.

    Raises:
        InputError: as for `list_folder`; or files are no pictures or, without `resize`, one is of
            another size than the first.
    """
    both = _readable(_headers, path, resize, test_share, seed, skip_unreadable)
    return both[0 if split == "train" else 1]


def load_folder(
    path: str | os.PathLike[str],
    *,
    resize: Resize | None = None,
    test_share: float = TEST_SHARE,
    seed: int = 0,
    skip_unreadable: bool = False,
) -> Dataset:
    """Read a folder of pictures into memory.

    Args:
        path, resize, test_share, seed, skip_unreadable: as for `folder_records`.

    Raises:
        InputError: as for `folder_records`, or pictures are damaged.
    """

    def whole(folder: Path, listing: Listing, resize: Resize | None) -> Dataset:
        both = _headers(folder, listing, resize)
        train, test = (
            Split(np.empty((len(some), *some.shape), np.uint8), np.array(some.labels, np.int32))
            for some in both
        )
        faults: dict[Path, str] = {}
        for split, records in zip((train, test), both, strict=True):
            for number, file in enumerate(records.files):
                try:
                    split.images[number] = records[number][0]
                except InputError as error:
                    faults[Path(file)] = reason(error, file)
        if faults:
            raise Unreadable(folder, faults)
        return Dataset(
            f"folder:{path}", train, test, both[0].classes, both[0].class_names, both[1].files
        )

    return _readable(whole, path, resize, test_share, seed, skip_unreadable)


def _readable(
    read: Callable[[Path, Listing, Resize | None], Read],
    path: str | os.PathLike[str],
    resize: Resize | None,
    test_share: float,
    seed: int,
    skip_unreadable: bool,
) -> Read:
    """Return what `read` makes of the files of a folder that it does not find unreadable."""
    folder, faults = user_path(path), {}
    while True:
        try:
            listing = list_folder(folder, test_share, seed, without=faults)
            found = read(folder, listing, resize)
            break
        except Unreadable as error:
            faults |= error.files
        except InputError as error:
            if faults and not skip_unreadable:  # of what is left
                raise Unreadable(folder, faults) from error
            raise
    if faults and not skip_unreadable:
        raise Unreadable(folder, faults)
    if faults:
        what = f"cannot be used and {'is' if len(faults) == 1 else 'are'} left out"
        _say_once(f"{_unreadable(folder, faults, what)}.")
    return found


@functools.cache
def _say_once(line: str) -> None:
    """Print a line to standard error, where several splits are opened."""
    print(line, file=sys.stderr, flush=True)


def _headers(
    folder: Path, listing: Listing, resize: Resize | None
) -> tuple[FolderRecords, FolderRecords]:
    """Return both splits, from the headers of all files."""
    names, *splits = listing
    shapes: dict[str, Shape] = {}
    faults: dict[Path, str] = {}
    for file, _ in (each for split in splits for each in split):
        try:
            shapes[str(file)] = picture_shape(file)
        except InputError as error:
            faults[file] = reason(error, file)
    if faults:
        raise Unreadable(folder, faults)
    channels = max(shape.channels for shape in shapes.values())
    first, (height, width, _) = next(iter(shapes.items()))
    if resize is not None:
        height, width, _ = resize
    else:
        for file, shape in shapes.items():
            if shape[:2] != (height, width):
                raise _of_another_size(file, shape, (height, width), f" as {first} is")
    records = functools.partial(
        FolderRecords, class_names=names, shape=(height, width, channels), resize=resize
    )
    train, test = (
        records(tuple(str(file) for file, _ in split), tuple(label for _, label in split))
        for split in splits
    )
    return train, test


def _of_another_size(
    file: str, shape: Sequence[int], expected: Sequence[int], like: str = ""
) -> InputError:
    return InputError(
        f"{file} is {shape[1]} by {shape[0]} pixels, expected {expected[1]} by {expected[0]}{like};"
        " a size to bring all pictures to (--image-size) lets them differ."
    )
