"""A trained network in one file, and what `nnlab.runs.fit` keeps of each training.

A file holds a model and its variables; `nnlab.models.load_model` builds it again from that alone.

Weights that the model uses only through their signs are stored as signs, eight to a byte; the
traced program says which these are, as it does for `nnlab.costs.stored_bytes`. All other arrays are
stored at their dtype. The file of a float or binary network therefore has as many bytes as that
function counts, plus the header. Weights of any other quantiser (ternary weights, for example) are
stored as the real numbers from which the model quantises them again.

The header (`nnlab.files.container`) has these keys:

========  =======================================================================================
"model"   name of the class; of one outside of `nnlab.models` "module:Class"
"fields"  arguments of its constructor (`nnlab.runs.descriptions`), such as
          {"arithmetic": "BINARY"}, {"layer": "LSTMCell"} or {"dtype": "bfloat16"}
"input"   shape and dtype of one input
"notes"   whatever else the network's user needs
========  =======================================================================================

Arrays are named by their paths, such as params/BinaryConv_0/binary_kernel.
"""

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from nnlab.costs.storage import kept_as_signs
from nnlab.errors import InputError
from nnlab.files import container
from nnlab.files.packing import SIGNS
from nnlab.runs import hosts
from nnlab.runs.descriptions import fields_of, path_of
from nnlab.runs.run_folder import RunFolder

NAMES: dict[type[nn.Module], str] = {}  # short names, which `nnlab.models` gives its classes


def export_variables(model: nn.Module, variables: Any, image: Any) -> dict[str, np.ndarray]:
    """Return the arrays to store: signs as int8 -1 and +1, everything else as it is.

    Args:
        model: called as `model.apply(variables, images)` for inference.
        variables: nested dictionaries of arrays.
        image: a batch of one input, an array or a `jax.ShapeDtypeStruct`.

    Returns:
        {path: array}.

    Raises:
        InputError: a weight to be stored as its sign is NaN.
    """
    signs = flatten_dict(kept_as_signs(model.apply, variables, image), sep="/")
    arrays = {}
    for name, array in flatten_dict(jax.device_get(variables), sep="/").items():
        array = np.asarray(array)
        if signs[name]:
            if np.isnan(array).any():
                raise InputError(f"{name} has weights that are NaN; expected numbers with a sign.")
            array = np.where(array >= 0, 1, -1).astype(np.int8)
        arrays[name] = array
    return arrays


def save_model(
    path: str | os.PathLike[str],
    model: nn.Module,
    variables: Any,
    image: Any,
    *,
    notes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write `model` and `variables` to one file.

    Args:
        path: the file; missing parent folders are created.
        model: a model of `nnlab.models` or of your own, of fields that
            `nnlab.runs.descriptions` lists.
        variables: its parameters and statistics.
        image: a batch of one input, such as [1, height, width, channels]; an array or a
            `jax.ShapeDtypeStruct`.
        notes: anything else that its user needs and JSON can hold, such as names of classes, a
            vocabulary, or how inputs are prepared.
        overwrite: replace an existing file.

    Raises:
        InputError: the file exists or cannot be written, or a header cannot describe the model.
    """
    about = described(model)
    arrays = export_variables(model, variables, image)
    about["input"] = {"shape": image.shape[1:], "dtype": jnp.dtype(image.dtype).name}
    about["notes"] = dict(notes or {})
    codes = {name: SIGNS for name, array in arrays.items() if array.dtype == np.int8}
    container.write(path, arrays, about=about, codes=codes, overwrite=overwrite)


def described(model: nn.Module) -> dict[str, Any]:
    """Return what a header says of a model: name of its class and arguments of its constructor.

    Raises:
        InputError: it is no Linen module, or has an argument that a header cannot name.
    """
    kind = type(model)
    if not isinstance(model, nn.Module):
        raise InputError(
            f"a file holds a Flax Linen module (flax.linen.Module), not a {kind.__qualname__}."
        )
    return {"model": NAMES.get(kind) or path_of(kind), "fields": fields_of(model)}


def keep(
    folder: RunFolder, name: str, model: nn.Module, variables: Any, inputs: Any, score: float
) -> None:
    """Write a trained network into its run's folder; of several, the best is the run's network.

    The notes of the file are those of the folder, "network" and "score". There is no file of a
    model that none can name, nor of one whose inputs are more than one array.

    Args:
        folder: of the run.
        name: of the network.
        model, variables: the network.
        inputs: a batch of inputs, of which only shape and dtype matter.
        score: the larger, the better.

    Raises:
        InputError: a file cannot be written.
    """
    if not hosts.is_writer() or not hasattr(inputs, "shape"):
        return
    try:
        described(model)
    except InputError:
        return
    file = folder.networks / f"{name}.safetensors"
    image = jax.ShapeDtypeStruct((1, *inputs.shape[1:]), inputs.dtype)
    notes = dict(folder.notes) | {"network": name, "score": score}
    save_model(file, model, variables, image, notes=notes, overwrite=True)
    if not folder.network.exists() or _score(folder.network) < score:
        with container.replacing(folder.network, overwrite=True) as partial:
            shutil.copyfile(file, partial)


def _score(path: Path) -> float:
    """Return the score of a file of `keep`; infinity for one that the script has written itself."""
    with contextlib.suppress(InputError):  # a damaged one is replaced
        return container.read(path).about.get("notes", {}).get("score", np.inf)
    return -np.inf
