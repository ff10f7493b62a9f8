"""Read a network that sees pictures, of floats or of integers, ready to use.

Its file says in its notes what the classes are called and how pictures are prepared. One that tells
the classes of pictures apart has an output a class; one of pixels an output a class for every
pixel; and of one that finds objects the notes also name the "detector", which makes boxes of its
outputs (`nnlab.vision.detection.detectors`).
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from nnlab import deployment
from nnlab.deployment.graph import IntegerNetwork
from nnlab.errors import InputError
from nnlab.files import container
from nnlab.files.saved import SavedModel
from nnlab.models.saved_models import load_model
from nnlab.paths import user_path
from nnlab.runs.descriptions import Reader
from nnlab.vision import Preparation


class Classifier(NamedTuple):
    """A network that sees pictures.

    Attributes:
        path: its file.
        class_names: names of the classes.
        preparation: makes the network's images of stored ones, uint8 [n, height, width, channels].
        logits: `logits(images)`, float32 [n, classes], of images as the network takes them; of
            pixels [n, height, width, classes]; of boxes `nnlab.vision.detection.Detections`.
        notes: whatever its file says beside the network, classes and preparation among it.
        saved: the model and its variables, or None if the network is one of integers.
        integers: the network of integers (`nnlab.deployment`), or None.
        tells: what it tells apart, pictures ("classes") or "pixels", or that it finds "boxes".
    """

    path: Path
    class_names: tuple[str, ...]
    preparation: Preparation
    logits: Callable[[jax.Array], jax.Array]
    notes: dict[str, Any]
    saved: SavedModel | None
    integers: IntegerNetwork | None
    tells: Literal["classes", "pixels", "boxes"] = "classes"


def load_classifier(path: str | os.PathLike[str], trust: bool = False) -> Classifier:
    """Read a network that tells the classes of pictures apart, as `load_seeing`.

    Raises:
        InputError: as for that; or it tells pixels apart or finds boxes.
    """
    found = load_seeing(path, trust)
    if found.tells != "classes":
        raise InputError(
            f"{found.path} gives {found.tells}, expected a network that tells pictures apart."
        )
    return found


def load_seeing(path: str | os.PathLike[str], trust: bool = False) -> Classifier:
    """Read a network of float or integer numbers whose file says how it sees pictures.

    Args:
        path: a file that a training on images has left, or that `nnlab.models.save_model` or
            `nnlab.deployment.save_network` wrote with the notes of `nnlab.vision.Images`.
        trust: import the class of a model of your own that it names, as `nnlab.models.load_model`.

    Raises:
        InputError: there is none, it is damaged, it is of a model of one's own and not trusted, or
            its file does not say how it sees pictures.
    """
    path = user_path(path)
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
    saved = integers = None
    apply: Any
    if integer:
        integers = deployment.load_network(path)
        apply = deployment.run(integers)
    else:
        saved = load_model(path, trust=trust)
        apply = functools.partial(saved.model.apply, saved.variables)
    if (detector := notes.get("detector")) is not None:
        apply = functools.partial(_detect, apply, Reader(trust).value(detector).detect)

    try:
        outputs = jax.eval_shape(apply, jax.ShapeDtypeStruct((1, *preparation.shape), jnp.float32))
    except Exception as error:  # of the model, if its file is of other images
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(
            f"{path} does not take the images of {list(preparation.shape)} that it names: {reason}."
        ) from error
    tells = "boxes"
    if detector is None:
        tells = "classes" if outputs.ndim == 2 else "pixels"
        expected = (1, *(preparation.shape[:2] if tells == "pixels" else ()), len(names))
        if outputs.shape != expected:
            raise InputError(
                f"{path} names {len(names)} classes for outputs {list(outputs.shape)}, expected one"
                " output a class."
            )
    if tells != "classes" and preparation.border is not None:
        raise InputError(f"{path} gives {tells} of images with a border, expected them without.")
    apply = jax.jit(apply)
    return Classifier(path, tuple(names), preparation, apply, notes, saved, integers, tells)


def _detect(forward: Any, detect: Any, images: jax.Array) -> Any:
    return detect(forward(images))
