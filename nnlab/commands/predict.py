"""Say what a trained network sees in pictures, in names of classes with their probabilities.

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
"""

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import jax
import numpy as np

from nnlab.errors import InputError, needs
from nnlab.models import PRETRAINED, Classifier, load_classifier, pretrained_file
from nnlab.models.own import search_here
from nnlab.paths import reading, user_path
from nnlab.runs import RunFolder
from nnlab.runs.fields import PositiveInt, check_fields
from nnlab.runs.script import run

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


def predicted(classifier: Classifier, images: tuple[str, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each picture's name and the probabilities of all classes, [classes].

    Raises:
        InputError: a picture cannot be read.
    """
    for start in range(0, len(images), BATCH):
        names = images[start : start + BATCH]
        stored = np.stack([classifier.preparation.read(name) for name in names])
        missing = min(len(images), BATCH) - len(names)
        stored = np.pad(stored, [(0, missing), (0, 0), (0, 0), (0, 0)])  # one compiled program
        logits = classifier.logits(classifier.preparation(stored))
        yield from zip(names, np.asarray(jax.nn.softmax(logits))[: len(names)], strict=True)


def shown(name: str, probabilities: np.ndarray, classes: tuple[str, ...], config: Config) -> str:
    """Return the line of a picture."""
    order = np.argsort(-probabilities, kind="stable")
    if not config.json:
        likely = (f"{classes[i]} {100 * probabilities[i]:.1f} %" for i in order[: config.top])
        return f"{name}: {', '.join(likely)}"
    best = order[0]
    every = dict(zip(classes, map(float, probabilities), strict=True))
    about = {"image": name, "class": classes[best], "probability": float(probabilities[best])}
    return json.dumps(about | {"probabilities": every}, ensure_ascii=False)


def main(config: Config) -> None:
    if not config.images:
        raise InputError("No IMAGE is given, expected one picture or more.")
    if config.trust:
        search_here()
    classifier = load_classifier(network_file(config.network, config.name), trust=config.trust)
    for name, probabilities in predicted(classifier, config.images):
        print(shown(name, probabilities, classifier.class_names, config))
        sys.stdout.flush()


if __name__ == "__main__":
    run(main, Config)
