"""Say what a trained network sees in pictures, in names of classes with their probabilities.

    python -m nnlab predict runs/fine_tune cat.jpg dog.png
    python -m nnlab predict runs/adder_cifar10/networks/BNN.safetensors --json *.png > seen.jsonl

The network is a file that a training has left (`network.safetensors`, of several networks the best
one, and each in `networks/`), an integer network made of one (`nnlab.deployment`), or the folder of
a run. Its file says how a picture is prepared and what the classes are called. Pictures may be of
any size and format that Pillow reads; each is brought to the size of the training images.

A line a picture goes to standard output: its name and the likeliest classes. With --json it is an
object with "image", "class", "probability" and "probabilities", of all classes. Digits of MNIST are
white on black, so a network that has learnt them expects the same of a scan.
"""

import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnlab import deployment
from nnlab.errors import InputError, needs
from nnlab.files import SavedModel, container
from nnlab.models import load_model
from nnlab.paths import reading, user_path
from nnlab.runs import RunFolder
from nnlab.runs.fields import PositiveInt, check_fields
from nnlab.runs.script import run
from nnlab.vision import Preparation

with needs("runs"):
    import tyro

BATCH = 32  # pictures that go through the network at once


@dataclasses.dataclass(frozen=True)
class Config:
    network: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK")]
    """File of the network, or folder of a run."""
    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
    """Files of pictures."""
    name: str | None = None
    """Which network of the run's folder; by default the best."""
    top: PositiveInt = 3
    """How many classes to show."""
    trust: bool = False
    """Import the class of a network that is not nnlab's, which runs what the file names."""
    json: bool = False
    """Write one JSON object a line, with the probabilities of all classes."""

    def __post_init__(self):
        check_fields(self)


class Classifier(NamedTuple):
    """A network that sees pictures.

    Attributes:
        path: its file.
        class_names: names of the classes.
        preparation: of pictures.
        logits: `logits(images)`, [n, classes], of images as the network takes them.
        saved: the model, or None if the network is one of integers.
    """

    path: Path
    class_names: tuple[str, ...]
    preparation: Preparation
    logits: Callable[[jax.Array], jax.Array]
    saved: SavedModel | None


def network_file(path: str | os.PathLike[str], name: str | None = None) -> Path:
    """Return the file of a network, given that file or the folder of a run.

    Raises:
        InputError: there is none; names those that there are.
    """
    path = user_path(path)
    with reading(path):
        if not path.is_dir():
            if name is not None:
                raise InputError(f"--name is for the folder of a run, which {path} is not.")
            return path
        folder = RunFolder(path)
        file = folder.network if name is None else folder.networks / f"{name}.safetensors"
        if file.is_file():
            return file
        there = ", ".join(sorted(each.stem for each in folder.networks.glob("*.safetensors")))
    raise InputError(
        f"{path} holds no {file.relative_to(path)}; expected "
        + (f"one of its networks {there}." if there else "the folder of a finished training.")
    )


def load(path: Path, trust: bool = False) -> Classifier:
    """Read a network of float or integer numbers.

    Args:
        path: its file.
        trust: import what the file names, see `nnlab.models.load_model`; modules are also looked
            for in the current folder.

    Raises:
        InputError: there is none, it is damaged, or its file does not say how it sees pictures.
    """
    about = container.read(path).about
    integer = "nodes" in about
    notes = about.get("about" if integer else "notes") or {}
    names, how = notes.get("classes"), notes.get("images")
    if not isinstance(names, list) or not isinstance(how, dict):
        raise InputError(
            f"{path} does not say how it sees pictures; expected a network that a training on"
            ' images has left, with "classes" and "images" in its notes.'
        )
    preparation = Preparation.of_notes(how)
    saved = None if integer else _loaded(path, trust)
    apply: Any
    if saved is None:
        apply = deployment.run(deployment.load_network(path))
    else:
        apply = functools.partial(saved.model.apply, saved.variables)
    try:
        outputs = jax.eval_shape(apply, jax.ShapeDtypeStruct((1, *preparation.shape), jnp.float32))
    except Exception as error:  # of the model, if its file is of other images
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(
            f"{path} does not take the images of {list(preparation.shape)} that it names: {reason}."
        ) from error
    if outputs.shape != (1, len(names)):
        raise InputError(
            f"{path} names {len(names)} classes for outputs {list(outputs.shape)}, expected one"
            " output a class."
        )
    return Classifier(path, tuple(names), preparation, jax.jit(apply), saved)


def _loaded(path: Path, trust: bool) -> SavedModel:
    if trust and "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return load_model(path, trust=trust)
    except InputError as error:
        if trust or "expected trust=True" not in str(error):
            raise
        model = container.read(path).about["model"]
        raise InputError(
            f"{path} names {model}, and to import that is to run it; expected --trust if you know"
            " where the file is from."
        ) from error


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
    classifier = load(network_file(config.network, config.name), config.trust)
    for name, probabilities in predicted(classifier, config.images):
        print(shown(name, probabilities, classifier.class_names, config))
        sys.stdout.flush()


if __name__ == "__main__":
    run(main, Config)
