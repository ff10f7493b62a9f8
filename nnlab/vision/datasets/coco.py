"""Boxes in a JSON file of COCO: pictures, categories and annotations of a split in one.

Boxes are (x, y, width, height) from 0. Ids of categories are any numbers, with gaps; classes are
numbered from 0 in their order, and `class_names` are the names of the categories. Crowds are
difficult boxes.
"""

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnlab.errors import InputError
from nnlab.paths import reading, user_path
from nnlab.vision.datasets.labelled import BoxRecords, Drawn, box_records
from nnlab.vision.pictures import Resize


def coco_records(
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    resize: Resize | None = None,
    skip_unreadable: bool = False,
) -> list[BoxRecords]:
    """Open pictures with boxes in COCO's form.

    Args:
        files: the JSON file of each split.
        images: the folder of the pictures of each, or one folder for all.
        resize: the size to bring pictures to; by default their own, which must be one.
        skip_unreadable: leave out pictures that cannot be read, and say so on standard error.

    Returns:
        Records of each split, with the classes of all.

    Raises:
        InputError: a file is no JSON of COCO, an annotation is of no picture or category, two
            splits give one id different names, or as for
            `nnlab.vision.datasets.labelled.box_records`.
    """
    paths = _paths(files)
    folders = _paths(images)
    folders = folders * len(paths) if len(folders) == 1 else folders
    if len(folders) != len(paths):
        raise InputError(f"there are {len(paths)} files and {len(folders)} folders of pictures.")
    contents = [_content(path) for path in paths]
    names: dict[int, str] = {}
    for path, content in zip(paths, contents, strict=True):
        for each in content["categories"]:
            if names.setdefault(int(each["id"]), str(each["name"])) != str(each["name"]):
                raise InputError(
                    f"{path} calls category {each['id']} {each['name']!r}, expected "
                    f"{names[int(each['id'])]!r} as in the other file."
                )
    numbers = {identity: number for number, identity in enumerate(sorted(names))}
    parts = [_drawn(*each, numbers) for each in zip(paths, contents, folders, strict=True)]
    class_names = [names[identity] for identity in numbers]
    return box_records(parts, class_names, resize, skip_unreadable=skip_unreadable)


def _paths(given: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    return [
        user_path(each) for each in ([given] if isinstance(given, str | os.PathLike) else given)
    ]


def _content(path: Path) -> Mapping[str, Any]:
    with reading(path):
        text = path.read_text()
    try:
        content = json.loads(text)
        for name in ("images", "annotations", "categories"):
            if not isinstance(content[name], list):
                raise ValueError(f"{name} is no list")
        return content
    except (ValueError, KeyError, TypeError) as error:
        expected = "expected JSON with the lists images, annotations and categories"
        raise InputError(f"{path} is no file of COCO's instances, {expected}.") from error


def _drawn(
    path: Path, content: Mapping[str, Any], folder: Path, numbers: Mapping[int, int]
) -> list[Drawn]:
    by_image = defaultdict(list)
    for each in content["annotations"]:
        by_image[each.get("image_id")].append(each)
    known = {image.get("id") for image in content["images"]}
    if unknown := by_image.keys() - known:
        raise InputError(
            f"{path} has boxes of the picture {min(map(str, unknown))}, which it lacks."
        )
    found = []
    for image in content["images"]:
        boxes, labels, crowds = [], [], []
        for each in by_image[image["id"]]:
            box = each.get("bbox")
            if not isinstance(box, list) or len(box) != 4:
                raise InputError(
                    f"annotation {each.get('id')} of {path} has the box {box!r:.60}, expected "
                    "[x, y, width, height]."
                )
            if each.get("category_id") not in numbers:
                expected = ", ".join(map(str, list(numbers)[:10]))
                raise InputError(
                    f"annotation {each.get('id')} of {path} is of category "
                    f"{each.get('category_id')}, expected one of {expected}."
                )
            x, y, width, height = map(float, box)
            boxes.append([x, y, x + width, y + height])
            labels.append(numbers[each["category_id"]])
            crowds.append(bool(each.get("iscrowd", 0)))
        size = (int(image["height"]), int(image["width"])) if image.get("height") else None
        array = np.array(boxes, float).reshape(-1, 4)
        file = folder / str(image["file_name"])
        found.append(
            Drawn(
                file, array, np.array(labels, int), np.array(crowds, bool), size, False, str(path)
            )
        )
    return found
