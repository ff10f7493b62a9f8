"""Boxes in text files of YOLO: a line a box, its class and its centre and sides as parts of 1.

    cells/images/train/1.jpg, cells/labels/train/1.txt, …    a folder a split
    cells/images/1.jpg, cells/labels/1.txt, …                split by a share
    cells/1.jpg, cells/1.txt, …                              the same

A line is `class x y width height`, or `class x1 y1 x2 y2 x3 y3 …`, a polygon, whose bounding box
is taken. An empty file or none is a picture without boxes. Classes are numbered from 0; their names
are in `data.yaml`, `classes.txt`, `obj.names` or `names.txt` of the folder, or are given. Parts are
of the picture upright.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnlab.errors import InputError
from nnlab.paths import reading, user_path
from nnlab.vision.datasets.labelled import BoxRecords, Drawn, box_records, hold_out_pictures
from nnlab.vision.pictures import Resize, is_picture

_TESTS = ("test", "val", "valid", "validation")
_NAMES = ("classes.txt", "obj.names", "names.txt")


def yolo_records(
    path: str | os.PathLike[str],
    *,
    resize: Resize | None = None,
    class_names: Sequence[str] | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    skip_unreadable: bool = False,
) -> list[BoxRecords]:
    """Open pictures with boxes in YOLO's form, to train and to test on.

    Args:
        path: the folder.
        resize: the size to bring pictures to; by default their own, which must be one.
        class_names: all classes in their order; by default those of the folder's file.
        test_share: the part of the pictures to test on, where there are no folders of splits.
        seed: draws it.
        skip_unreadable: leave out pictures that cannot be read, and say so on standard error.

    Returns:
        Records to train and to test on.

    Raises:
        InputError: there is no folder or picture or no names of classes, a line is none of the
            above or of no class, or as for `nnlab.vision.datasets.labelled.box_records`.
    """
    root = user_path(path)
    with reading(root):
        if not root.is_dir():
            raise InputError(f"there is no folder {root}, expected one with pictures and labels.")
        names = list(class_names) if class_names is not None else _names(root)
        images = root / "images" if (root / "images").is_dir() else root
        labels = root / "labels" if (root / "labels").is_dir() else root
        tests = [name for name in _TESTS if (images / name).is_dir()]
        if (images / "train").is_dir() and tests:
            pairs = [(images / split, labels / split) for split in ("train", tests[0])]
            parts = [_drawn(*pair, len(names)) for pair in pairs]
        else:
            parts = hold_out_pictures(_drawn(images, labels, len(names)), test_share, seed)
    return box_records(parts, names, resize, skip_unreadable=skip_unreadable)


def _names(root: Path) -> list[str]:
    for name in _NAMES:
        if (root / name).is_file():
            return [line.strip() for line in (root / name).read_text().splitlines() if line.strip()]
    if (root / "data.yaml").is_file():
        import yaml  # which Flax brings

        try:
            found = yaml.safe_load((root / "data.yaml").read_text())["names"]
            return [str(found[i]) for i in sorted(found)] if isinstance(found, dict) else [*found]
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise InputError(f"{root / 'data.yaml'} has no list names of the classes.") from error
    expected = ", ".join([*_NAMES, "data.yaml"])
    raise InputError(f"{root} does not name its classes, expected {expected} or class_names.")


def _drawn(images: Path, labels: Path, classes: int) -> list[Drawn]:
    files = [file for file in sorted(images.iterdir()) if is_picture(file)]
    if not files:
        raise InputError(f"{images} holds no pictures, expected some.")
    found = []
    for file in files:
        text = labels / f"{file.stem}.txt"
        lines = text.read_text().splitlines() if text.is_file() else []
        rows = [_parsed(line, text, number) for number, line in enumerate(lines, 1) if line.strip()]
        numbers = np.array([number for number, _ in rows], int)
        boxes = np.array([box for _, box in rows], float).reshape(-1, 4)
        found.append(Drawn(file, boxes, numbers, np.zeros(len(rows), bool), None, True, str(text)))
    highest = max((each.classes.max(initial=-1) for each in found), default=-1)
    lowest = min((each.classes.min(initial=classes) for each in found), default=0)
    if highest == classes and lowest >= 1:
        raise InputError(
            f"{labels} numbers its classes {lowest} to {highest}, expected 0 to {classes - 1}: "
            "subtract 1."
        )
    return found


def _parsed(line: str, file: Path, number: int) -> tuple[int, list[float]]:
    """Return class and corners of a line."""
    try:
        kind, *values = map(float, line.split())
        if len(values) == 4 and kind == int(kind):
            x, y, width, height = values
            return int(kind), [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        if len(values) >= 6 and len(values) % 2 == 0 and kind == int(kind):
            x, y = values[::2], values[1::2]
            return int(kind), [min(x), min(y), max(x), max(y)]
    except ValueError:
        pass
    expected = "expected a class and its x, y, width and height"
    raise InputError(f"line {number} of {file} is {line.strip()!r:.60}, {expected}.")
