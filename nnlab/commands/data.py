"""Find corrupt files, duplicates and odd pictures in a folder of images.

    nnlab data check flowers
    nnlab data check flowers --network runs/fine_tune --unlike 10

The folder has one folder a class, or `train` and `test` with these. Four lists are printed:

corrupt: files that cannot be read to their end, and why.
duplicates: files of the same bytes, and files of other bytes with the same pixels. It is said where
the same picture is of two classes, or both in `train` and in `test`.
unlike: in each class, the pictures furthest from its mean. The distance is the root mean square of
the differences to the class's mean picture, all at 32 by 32 pixels in colour, in units of 0 to 255;
with --network, of the differences between the network's features (what its model names "features",
or else its logits) and their mean over the class. It is given as a multiple of the class's median.
classes: how many pictures each has.

The exit status is 1 where a file is corrupt or a duplicate.
"""

import collections
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np

from nnlab.commands import predict
from nnlab.errors import InputError, needs
from nnlab.models import load_classifier
from nnlab.paths import reading, user_path
from nnlab.runs.fields import Count, check_fields
from nnlab.runs.script import run
from nnlab.vision import Resize, read_picture
from nnlab.vision.pictures import is_picture, reason

with needs("runs"):
    import tyro

THUMBNAIL = Resize(32, 32, "stretch")
FEW = 3  # a mean of fewer pictures says little about them


@dataclasses.dataclass(frozen=True)
class Config:
    action: Annotated[Literal["check"], tyro.conf.Positional]
    """What to do with the folder."""
    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of pictures, one folder a class."""
    unlike: Count = 3
    """How many of the most unlike pictures of each class to list."""
    network: str | None = None
    """File of a network, or folder of a run, whose features tell pictures apart."""
    json: bool = False
    """Print one JSON object instead."""

    def __post_init__(self):
        check_fields(self)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A file that could be read.

    Attributes:
        path: the file, below the folder.
        bytes, pixels: digests of the file, and of size and pixels.
        thumbnail: uint8 [32, 32, 3].
    """

    path: Path
    bytes: str
    pixels: str
    thumbnail: np.ndarray

    @property
    def group(self) -> str:
        """The folder that it is in: split and class."""
        return self.path.parent.as_posix()


def files(folder: Path) -> list[Path]:
    """Return all files below the folder but hidden ones, by name, relative to it.

    Raises:
        InputError: there is no such folder, it cannot be read, or it holds no picture.
    """
    with reading(folder):
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}, expected one with a folder a class.")
        found = []
        for root, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            below = Path(root).relative_to(folder)
            found += [below / name for name in names if not name.startswith(".")]
    if not any(map(is_picture, found)):
        raise InputError(f"{folder} holds no picture, expected PNG, JPEG or another format.")
    if not any(is_picture(path) and len(path.parts) > 1 for path in found):
        raise InputError(f"{folder} holds pictures itself, expected a folder for each class.")
    return sorted(found)


def read(folder: Path, paths: Sequence[Path]) -> tuple[list[Picture], dict[str, str]]:
    """Return the pictures, and of the files that are none {path: what is wrong}."""
    pictures, corrupt = [], {}
    for path in paths:
        whole = folder / path
        try:
            pixels = read_picture(whole)
            with reading(whole):
                digest = hashlib.sha256(whole.read_bytes()).hexdigest()
            small = THUMBNAIL(pixels)
        except InputError as error:
            corrupt[path.as_posix()] = reason(error, whole)
            continue
        named = f"{pixels.shape} ".encode() + pixels.tobytes()
        small = np.broadcast_to(small, (*small.shape[:2], 3))
        pictures.append(Picture(path, digest, hashlib.sha256(named).hexdigest(), small))
    return pictures, corrupt


def duplicates(pictures: Sequence[Picture]) -> Iterator[dict[str, Any]]:
    """Yield the groups of files that show the same picture: "same", "files" and "of"."""
    same: dict[str, list[Picture]] = collections.defaultdict(list)
    for picture in pictures:
        same[picture.pixels].append(picture)
    for group in same.values():
        if len(group) > 1:
            what = "bytes" if len({each.bytes for each in group}) == 1 else "pixels"
            places = sorted({each.group for each in group})
            yield {"same": what, "files": [p.path.as_posix() for p in group], "of": places}


def unlike(
    pictures: Sequence[Picture], features: np.ndarray, most: int
) -> dict[str, list[dict[str, Any]]]:
    """Return the pictures furthest from the mean of their class, by class.

    Args:
        pictures: n of them.
        features: float [n, d].
        most: how many of each class.

    Returns:
        {class: [{"file", "distance", "medians"}]}, the furthest first, of the classes with at least
        three pictures; "medians" is the distance in units of the class's median.
    """
    found = {}
    groups = np.array([picture.group for picture in pictures])
    for group in sorted(set(groups.tolist())):
        members = np.flatnonzero(groups == group)
        if len(members) < FEW:
            continue
        some = features[members].astype(np.float64)
        distances = np.sqrt(np.square(some - some.mean(axis=0)).mean(axis=1))
        median = float(np.median(distances))
        furthest = np.argsort(-distances, kind="stable")[:most]
        found[group] = [
            {
                "file": pictures[int(members[i])].path.as_posix(),
                "distance": float(distances[i]),
                "medians": float(distances[i]) / median if median else None,
            }
            for i in furthest
        ]
    return found


def features_of(network: str, folder: Path, pictures: Sequence[Picture]) -> np.ndarray:
    """Return the features of a network for each picture, [n, d].

    Raises:
        InputError: the network cannot be read, or is one of integers.
    """
    classifier = load_classifier(predict.network_file(network))
    if classifier.saved is None:
        raise InputError(f"{classifier.path} is a network of integers, expected one of floats.")
    model, variables, _ = classifier.saved

    @jax.jit
    def features(images: jax.Array) -> jax.Array:
        outputs: Any = model.apply(variables, images, mutable=["intermediates"])
        logits, sown = outputs
        (found,) = sown.get("intermediates", {}).get("features", (logits,))
        return found.reshape(len(images), -1)

    parts = []
    for start in range(0, len(pictures), predict.BATCH):
        some = pictures[start : start + predict.BATCH]
        stored = np.stack([classifier.preparation.read(folder / each.path) for each in some])
        missing = min(len(pictures), predict.BATCH) - len(some)
        stored = np.pad(stored, [(0, missing), (0, 0), (0, 0), (0, 0)])  # one compiled program
        parts.append(np.asarray(features(classifier.preparation(stored)))[: len(some)])
    return np.concatenate(parts)


def main(config: Config) -> None:
    folder = user_path(config.folder)
    paths = files(folder)
    pictures, corrupt = read(folder, paths)
    if config.network is None or not pictures:
        measure = "pixels"
        features = np.array([p.thumbnail for p in pictures]).reshape(len(pictures), -1)
    else:
        measure = "features"
        features = features_of(config.network, folder, pictures)
    found = {
        "classes": dict(collections.Counter(picture.group for picture in pictures)),
        "corrupt": corrupt,
        "duplicates": list(duplicates(pictures)),
        "measure": measure,
        "unlike": unlike(pictures, features, config.unlike),
    }
    print(json.dumps(found, ensure_ascii=False) if config.json else text(found))
    if corrupt or found["duplicates"]:
        raise SystemExit(1)


def text(found: dict[str, Any]) -> str:
    """Return the lists as a person reads them."""
    lines = [_number(len(found["corrupt"]), "file") + " that no picture can be read from"]
    lines += [f"  {path}: {why}" for path, why in found["corrupt"].items()]
    lines += ["", _number(len(found["duplicates"]), "picture") + " more than once"]
    for group in found["duplicates"]:
        where = "" if len(group["of"]) == 1 else f", in {' and '.join(group['of'])}"
        lines.append(f"  same {group['same']}{where}: {', '.join(group['files'])}")
    lines += ["", f"Furthest from the mean of their class, in {found['measure']}"]
    for pictures in found["unlike"].values():
        for each in pictures:
            times = "" if each["medians"] is None else f", {each['medians']:.1f} times the median"
            lines.append(f"  {each['file']}: {each['distance']:.3g}{times}")
    lines += ["", "Pictures of each class"]
    lines += [f"  {group}: {count}" for group, count in sorted(found["classes"].items())]
    return "\n".join(lines)


def _number(count: int, of: str) -> str:
    return f"{count} {of}{'' if count == 1 else 's'}"


if __name__ == "__main__":
    run(main, Config)
