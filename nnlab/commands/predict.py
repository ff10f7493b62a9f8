"""Say what a trained network sees in pictures: classes, masks or boxes, by their names.

    nnlab predict runs/fine_tune cat.jpg dog.png
    nnlab predict runs/adder_cifar10/networks/BNN.safetensors --json *.png > seen.jsonl
    nnlab predict lenet5_adder_int4 scan.png

The network is a file that a training has left (`network.safetensors`, of several networks the best
one, and each in `networks/`), an integer network made of one (`nnlab.deployment`), the folder of a
run, or a name of a network that comes with nnlab (`nnlab.models.PRETRAINED`). Its file says how a
picture is prepared and what the classes are called. Pictures may be of any size and format that
Pillow reads; each is brought to the size of the training images.

A line a picture goes to standard output: its name and the likeliest classes. With --json it is an
object with "image", "class", "probability" and "probabilities", of all classes. Digits of MNIST are
white on black, so a network that has learnt them expects the same of a scan.

A network that tells pixels apart says which part of each picture is of a class ("pixels"), and one
that finds objects its boxes ("boxes": class, probability, and corners in pixels of the picture).
With `--draw FOLDER` both are drawn into pictures there, and masks are written beside them:

    nnlab predict runs/nuclei cells/*.png --draw seen
"""

import dataclasses
import json
import operator
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np

from nnlab.errors import InputError, needs
from nnlab.models import PRETRAINED, Classifier, load_seeing, pretrained_file
from nnlab.models.own import search_here
from nnlab.paths import reading, user_path, writing
from nnlab.runs import RunFolder
from nnlab.runs.fields import PositiveInt, Share, check_fields
from nnlab.runs.script import run
from nnlab.vision.datasets.masks import restored_mask
from nnlab.vision.detection.detectors import Detections
from nnlab.vision.pictures import picture_shape, read_picture

with needs("runs"):
    import tyro

BATCH = 32  # pictures that go through the network at once


@dataclasses.dataclass(frozen=True)
class Config:
    network: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK")]
    """File of the network, folder of a run, or a name of nnlab.models.PRETRAINED."""
    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
    """Files of pictures."""
    name: str | None = None
    """Which network of the run's folder; by default the best."""
    top: PositiveInt = 3
    """How many classes to show."""
    json: bool = False
    """Write one JSON object a line, with the probabilities of all classes."""
    draw: str | None = None
    """Folder for pictures with boxes, or with masks, drawn into them."""
    least: Share = 0.5
    """Probability from which on a box is shown."""
    overwrite: bool = False
    """Replace pictures in that folder."""
    trust: bool = False
    """Import the class that the file of a network of your own names, which runs its module."""

    def __post_init__(self):
        check_fields(self)


def network_file(path: str | os.PathLike[str], name: str | None = None) -> Path:
    """Return the file of a network, given that file, the folder of a run or a pretrained name.

    Raises:
        InputError: there is none; names those that there are.
    """
    path = user_path(path)
    with reading(path):
        if not path.exists() and str(path) not in PRETRAINED:
            raise InputError(
                f"there is no file or folder {path}; expected that of a network or run, or one of"
                f" {', '.join(PRETRAINED)}."
            )
        if not path.is_dir():
            if name is not None:
                raise InputError(f"--name is for the folder of a run, which {path} is not.")
            return path if path.exists() else pretrained_file(str(path))
        folder = RunFolder(path)
        file = folder.network if name is None else folder.networks / f"{name}.safetensors"
        if file.is_file():
            return file
        there = ", ".join(sorted(each.stem for each in folder.networks.glob("*.safetensors")))
    raise InputError(
        f"{path} holds no {file.relative_to(path)}; expected "
        + (f"one of its networks {there}." if there else "the folder of a finished training.")
    )


def predicted(classifier: Classifier, images: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield each picture's name and what the network gives for it, a tree of arrays.

    Raises:
        InputError: a picture cannot be read.
    """
    for start in range(0, len(images), BATCH):
        names = images[start : start + BATCH]
        stored = np.stack([classifier.preparation.read(name) for name in names])
        missing = min(len(images), BATCH) - len(names)
        stored = np.pad(stored, [(0, missing), (0, 0), (0, 0), (0, 0)])  # one compiled program
        outputs = jax.device_get(classifier.logits(classifier.preparation(stored)))
        for number, name in enumerate(names):
            yield name, jax.tree.map(operator.itemgetter(number), outputs)


Seen = dict[str, Any]


def seen_classes(logits: np.ndarray, classes: tuple[str, ...]) -> Seen:
    """Return the probabilities of a picture's classes, and which is the likeliest."""
    probabilities = np.asarray(jax.nn.softmax(logits))
    best = probabilities.argmax()
    every = dict(zip(classes, map(float, probabilities), strict=True))
    about = {"class": classes[best], "probability": float(probabilities[best])}
    return about | {"probabilities": every}


def seen_pixels(mask: np.ndarray, classes: tuple[str, ...]) -> Seen:
    """Return the part of a picture that each class has, of the pixels that were seen."""
    counts = np.bincount(mask.ravel(), minlength=len(classes))[: len(classes)]
    parts = map(float, counts / max(1, counts.sum()))
    return {"pixels": dict(zip(classes, parts, strict=True))}


def seen_boxes(detections: Detections, name: str, classifier: Classifier, least: float) -> Seen:
    """Return the boxes in a picture, in its own pixels."""
    height, width, _ = picture_shape(name)
    placed = classifier.preparation.resize.placed(height, width)
    boxes = placed.move_back(np.asarray(detections.boxes)).clip(0, [width, height] * 2)
    shown = np.flatnonzero(detections.mask & (detections.scores >= least))
    found = [
        {
            "class": classifier.class_names[detections.classes[i]],
            "probability": float(detections.scores[i]),
            "box": np.round(boxes[i], 1).tolist(),
        }
        for i in shown
    ]
    return {"boxes": found}


def line_of(name: str, seen: Seen, top: int) -> str:
    """Return what was seen in a picture in a line."""
    if "boxes" in seen:
        each = (
            f"{one['class']} {100 * one['probability']:.1f} % at {' '.join(map(str, one['box']))}"
            for one in seen["boxes"]
        )
        return f"{name}: {', '.join(each) or 'nothing'}"
    shares = seen.get("pixels") or seen["probabilities"]
    likely = sorted(shares.items(), key=lambda pair: -pair[1])
    return f"{name}: " + ", ".join(f"{c} {100 * share:.1f} %" for c, share in likely[:top])


def files_to_draw(config: Config) -> dict[str, Path]:
    """Return the file of each picture's drawing.

    Raises:
        InputError: two pictures have the same, or one is there already or one of the pictures.
    """
    assert config.draw is not None
    folder, found, taken = user_path(config.draw), {}, set()
    pictures = {user_path(image).resolve() for image in config.images}
    for image in config.images:
        file = folder / f"{Path(image).stem}.png"
        for each in (file, mask_file(file)):
            if each in taken:
                raise InputError(f"two pictures would be drawn into {each}, expected other names.")
            if each.resolve() in pictures:
                raise InputError(f"{each} is one of the pictures, expected another folder to draw.")
            if each.exists() and not config.overwrite:
                raise InputError(f"{each} exists; --overwrite replaces it.")
            taken.add(each)
        found[image] = file
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return found


def mask_file(drawn: Path) -> Path:
    """Return the file of the mask beside a drawing: grey, the numbers of classes."""
    return drawn.with_name(f"{drawn.stem}_mask.png")


def main(config: Config) -> None:
    if not config.images:
        raise InputError("No IMAGE is given, expected one picture or more.")
    if config.trust:
        search_here()
    classifier = load_seeing(network_file(config.network, config.name), trust=config.trust)
    names, tells = classifier.class_names, classifier.tells
    if config.draw is not None and tells == "classes":
        raise InputError(f"{classifier.path} finds no boxes or masks to draw; leave --draw out.")
    files = files_to_draw(config) if config.draw is not None else {}
    for name, outputs in predicted(classifier, config.images):
        mask = None
        if tells == "pixels":
            shape = picture_shape(name)[:2]
            classes = outputs.argmax(-1).astype(np.uint8)
            mask = restored_mask(classes, classifier.preparation.resize, shape)
            seen = seen_pixels(mask, names)
        elif tells == "boxes":
            seen = seen_boxes(outputs, name, classifier, config.least)
        else:
            seen = seen_classes(outputs, names)
        if name in files:
            draw(name, seen, mask, names, files[name])
        line = line_of(name, seen, config.top)
        if config.json:
            line = json.dumps({"image": name} | seen, ensure_ascii=False)
        print(line, flush=True)


def draw(
    name: str, seen: Seen, mask: np.ndarray | None, classes: tuple[str, ...], file: Path
) -> None:
    """Write a picture with what was seen drawn into it, and the mask beside it."""
    with needs("images"):
        from PIL import Image

        from nnlab.vision import drawing

    picture = read_picture(name, 3)
    with writing(file):
        if mask is not None:
            Image.fromarray(mask).save(mask_file(file))
            Image.fromarray(drawing.draw_mask(picture, mask)).save(file)
            return
        boxes = seen["boxes"]
        numbers = [classes.index(one["class"]) for one in boxes]
        labels = [f"{one['class']} {100 * one['probability']:.0f} %" for one in boxes]
        drawn = drawing.draw_boxes(picture, [one["box"] for one in boxes], numbers, labels)
        Image.fromarray(drawn).save(file)


if __name__ == "__main__":
    run(main, Config)
