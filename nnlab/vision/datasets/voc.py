"""Boxes in files of Pascal VOC: one XML file a picture, as labelImg and most other tools write it.

    cells/JPEGImages/1.jpg, cells/Annotations/1.xml, cells/ImageSets/Main/train.txt, …
    cells/1.jpg, cells/1.xml, …                                          split by a share

Lists in `ImageSets/Main` name the pictures of each split; without them a share is drawn to test on.
A picture belongs to the XML file of its name, whatever this file says of its name, and one without
an XML file has no boxes. Coordinates may be decimal; `difficult` may be missing.

VOC counts pixels from 1, both ends included. With `corner="extent"` 1 is subtracted from the upper
left corner alone, which gives the box its exact extent; with "shift" from both corners, as in
Faster R-CNN's code; with "none" from neither, for tools that count from 0. A box whose corners are
the same is degenerate in all of them.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args
from xml.etree import ElementTree

import numpy as np

from nnlab.errors import InputError
from nnlab.paths import reading, user_path
from nnlab.vision.datasets.labelled import (
    BoxRecords,
    Drawn,
    box_records,
    hold_out_pictures,
    numbered,
)
from nnlab.vision.pictures import Resize, is_picture

Corner = Literal["extent", "shift", "none"]
_SHIFTS = {"extent": (1, 1, 0, 0), "shift": (1, 1, 1, 1), "none": (0, 0, 0, 0)}


def voc_records(
    path: str | os.PathLike[str],
    *,
    splits: Sequence[str] = ("train", "test"),
    resize: Resize | None = None,
    class_names: Sequence[str] | None = None,
    corner: Corner = "extent",
    test_share: float = 0.2,
    seed: int = 0,
    skip_unreadable: bool = False,
) -> list[BoxRecords]:
    """Open pictures with boxes in VOC's form.

    Args:
        path: the folder.
        splits: the lists in `ImageSets/Main` to open; without that folder, there are "train" and
            "test", drawn.
        resize: the size to bring pictures to; by default their own, which must be one.
        class_names: all classes in their order; by default those of all files, by name.
        corner: what coordinates count.
        test_share: the part of the pictures to test on where there are no lists.
        seed: draws it.
        skip_unreadable: leave out pictures that cannot be read, and say so on standard error.

    Returns:
        Records of each of `splits`.

    Raises:
        InputError: there is no folder, list or picture, an XML file is malformed or has a class
            that is not among `class_names`, or as for `nnlab.vision.datasets.labelled.box_records`.
    """
    root = user_path(path)
    if corner not in _SHIFTS:
        raise InputError(f"corner is {corner!r}, expected one of {', '.join(get_args(Corner))}.")
    with reading(root):
        if not root.is_dir():
            raise InputError(
                f"there is no folder {root}, expected one with pictures and XML files."
            )
        images, notes = root / "JPEGImages", root / "Annotations"
        images, notes = (each if each.is_dir() else root for each in (images, notes))
        files = {file.stem: file for file in sorted(images.iterdir()) if is_picture(file)}
        parsed = {file.stem: _parsed(file) for file in sorted(notes.glob("*.xml"))}
    if not files or not parsed:
        what = "pictures" if not files else "XML files"
        raise InputError(f"{images if not files else notes} holds no {what}, expected some.")
    every = [name for objects, _ in parsed.values() for name, _, _ in objects]
    numbers = numbered(every, class_names, notes)

    def drawn(stem: str) -> Drawn:
        objects, size = parsed.get(stem, ([], None))
        shift = np.array(_SHIFTS[corner], float)
        boxes = np.array([box for _, box, _ in objects], float).reshape(-1, 4)
        same = (boxes[:, 2:] <= boxes[:, :2]).any(axis=1, keepdims=True)
        boxes = np.where(same, 0, boxes - shift)
        labels = np.array([numbers[name] for name, _, _ in objects], int)
        difficult = np.array([hard for _, _, hard in objects], bool)
        source = str(notes / f"{stem}.xml")
        return Drawn(files[stem], boxes, labels, difficult, size, False, source)

    lists = root / "ImageSets" / "Main"
    if lists.is_dir():
        stems = [_listed(lists / f"{split}.txt", files) for split in splits]
        parts = [[drawn(stem) for stem in some] for some in stems]
    else:
        if unknown := [split for split in splits if split not in ("train", "test")]:
            raise InputError(f"there is no {lists / unknown[0]}.txt, expected a list of pictures.")
        both = hold_out_pictures([drawn(stem) for stem in files], test_share, seed)
        parts = [both[split == "test"] for split in splits]
    return box_records(parts, tuple(numbers), resize, skip_unreadable=skip_unreadable)


def _listed(file: Path, files: dict[str, Path]) -> list[str]:
    if not file.is_file():
        raise InputError(f"there is no {file}, expected a list of pictures.")
    with reading(file):
        stems = [line.split()[0] for line in file.read_text().splitlines() if line.strip()]
    stems = [stem if stem in files else Path(stem).stem for stem in stems]
    if missing := [stem for stem in stems if stem not in files]:
        raise InputError(f"{file} names {missing[0]}, of which there is no picture.")
    return stems


def _parsed(
    file: Path,
) -> tuple[list[tuple[str, list[float], bool]], tuple[int, int] | None]:
    """Return name, box and difficulty of each object of an XML file, and height and width."""
    try:
        with reading(file):
            tree = ElementTree.parse(file).getroot()
        objects = []
        for item in tree.iter("object"):
            name, box = (item.findtext("name") or "").strip(), item.find("bndbox")
            if not name or box is None:
                raise ValueError("an object without a name or a box")
            sides = [
                float(box.findtext(side) or "nan") for side in ("xmin", "ymin", "xmax", "ymax")
            ]
            objects.append((name, sides, (item.findtext("difficult") or "0").strip() == "1"))
        size = [int(float(tree.findtext(f"size/{side}") or 0)) for side in ("height", "width")]
        return objects, (size[0], size[1]) if min(size) > 0 else None
    except (ElementTree.ParseError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} is no annotation of VOC: {error}.") from error
