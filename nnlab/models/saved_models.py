"""A model and its variables in one file, from which it can be built again, or its structure alone.

Weights that the model uses only through their signs are stored as signs, eight to a byte; the
traced program says which these are, as it does for `nnlab.costs.stored_bytes`. All other arrays are
stored at their dtype. The file of a float or binary network therefore has as many bytes as that
function counts, plus the header. Weights of any other quantiser (ternary weights, for example) are
stored as the real numbers from which the model quantises them again.

The header (`nnlab.files.container`) has these keys:

========  =======================================================================================
"model"   name of the class; of one outside of `nnlab.models` "module:Class"
"fields"  arguments of its constructor (`nnlab.models.descriptions`), such as
          {"arithmetic": "BINARY"}, {"layer": "LSTMCell"} or {"dtype": "bfloat16"}
"input"   shape and dtype of one input
"notes"   whatever else the network's user needs
========  =======================================================================================

Arrays are named by their paths, such as params/BinaryConv_0/binary_kernel.
"""

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from nnlab.costs.storage import kept_as_signs
from nnlab.errors import InputError
from nnlab.files import container
from nnlab.files.packing import SIGNS
from nnlab.files.saved import SavedModel
from nnlab.models.descriptions import Reader, fields_of, path_of
from nnlab.models.zoo import ZOO
from nnlab.paths import reading, user_path

_KINDS = {entry.kind.__name__: entry.kind for entry in ZOO.values()}


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
            `nnlab.models.descriptions` lists.
        variables: its parameters and statistics.
        image: a batch of one input, such as [1, height, width, channels]; an array or a
            `jax.ShapeDtypeStruct`.
        notes: anything else that its user needs and JSON can hold, such as names of classes, a
            vocabulary, or how inputs are prepared.
        overwrite: replace an existing file.

    Raises:
        InputError: the file exists or cannot be written, or a header cannot describe the model.
    """
    about: dict[str, Any] = {"model": _name_of(model), "fields": fields_of(model)}
    arrays = export_variables(model, variables, image)
    about["input"] = {"shape": image.shape[1:], "dtype": jnp.dtype(image.dtype).name}
    about["notes"] = dict(notes or {})
    codes = {name: SIGNS for name, array in arrays.items() if array.dtype == np.int8}
    container.write(path, arrays, about=about, codes=codes, overwrite=overwrite)


def load_model(
    path: str | os.PathLike[str],
    *,
    model: nn.Module | type[nn.Module] | None = None,
    trust: bool = False,
) -> SavedModel:
    """Read a file of `save_model`; signs come back as float32 -1 and +1.

    No code that the file names is imported but nnlab's, Flax's, JAX's and optax's layers and
    functions, unless the caller says so by `model` or `trust`.

    Args:
        path: the file.
        model: the class of a model of your own, which is then built with the file's fields, or the
            model itself, which is then taken as it is.
        trust: import whatever the file names, which runs it: as with any program, only for files
            from those whom you trust.

    Raises:
        InputError: the file does not exist, is damaged, names code without `model` or `trust`, or
            its arrays do not fit the model.
    """
    about, arrays = container.read(path)
    if "model" not in about:
        raise InputError(f"{path} holds no model, expected a file of nnlab.models.save_model.")
    built = _built(path, about, model, trust)
    floats = {
        name: array.astype(np.float32) if array.dtype == np.int8 else array
        for name, array in arrays.items()
    }
    variables = jax.tree.map(jnp.asarray, unflatten_dict(floats, sep="/"))
    if _KINDS.get(type(built).__name__) is not type(built) or model is not None:
        _check_fit(path, about, built, variables)
    return SavedModel(built, variables, about.get("notes", {}))


def save_structure(
    path: str | os.PathLike[str], model: nn.Module, *, overwrite: bool = False
) -> None:
    """Write what `model` is, without its variables, as JSON: its class and its fields.

    Args:
        path: the file; missing parent folders are created.
        model: as for `save_model`.
        overwrite: replace an existing file.

    Raises:
        InputError: the file exists or cannot be written, or JSON cannot describe the model.
    """
    about = {"format": container.FORMAT, "model": _name_of(model), "fields": fields_of(model)}
    text = json.dumps(about, indent=1, allow_nan=False)
    with container.replacing(path, overwrite) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def load_structure(
    path: str | os.PathLike[str],
    *,
    model: type[nn.Module] | None = None,
    trust: bool = False,
) -> nn.Module:
    """Read a model, without variables, that `save_structure` wrote.

    Args:
        path: the file.
        model, trust: as for `load_model`.

    Raises:
        InputError: the file does not exist, is no such JSON, or names code without `model` or
            `trust`.
    """
    path = user_path(path)
    try:
        with reading(path):
            about = json.loads(path.read_text(encoding="utf-8"))
        known = about["format"] == container.FORMAT and about["fields"].keys()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        known = None
    if known is None or known is False:
        raise InputError(
            f"{path} is no structure of format {container.FORMAT}, expected a file of "
            "nnlab.models.save_structure."
        )
    return _built(path, about, model, trust)


def _name_of(model: Any) -> str:
    kind = type(model)
    if not isinstance(model, nn.Module):
        raise InputError(
            f"a file holds a Flax Linen module (flax.linen.Module), not a {kind.__qualname__}."
        )
    return kind.__name__ if _KINDS.get(kind.__name__) is kind else path_of(kind)


def _built(
    path: Any, about: dict[str, Any], model: nn.Module | type[nn.Module] | None, trust: bool
) -> nn.Module:
    """The model that a header describes."""
    name = str(about["model"])
    own = name.partition(":")[2].rpartition(".")[2] or name
    kind: Any = type(model) if isinstance(model, nn.Module) else model
    if kind is not None and (not isinstance(kind, type) or not issubclass(kind, nn.Module)):
        raise InputError(f"model must be a Flax Linen module or its class, not {model!r:.80}.")
    if kind is not None and kind.__name__ != own:
        raise InputError(f"{path} holds a {own}, not a {kind.__name__}.")
    if isinstance(model, nn.Module):
        return model
    try:
        reader = Reader(trust, {} if kind is None else {name: kind, path_of(kind): kind})
        if kind is None:
            kind = reader.object(name) if ":" in name else _KINDS.get(name)
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise InputError(f"it holds {name!r}; expected a model of nnlab.models or a class.")
        if unknown := about["fields"].keys() - {field.name for field in dataclasses.fields(kind)}:
            raise InputError(f"it has {', '.join(sorted(unknown))}, which {own} lacks.")
        return kind(**reader.fields(about["fields"]))
    except InputError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except TypeError as error:
        raise InputError(f"{path} lacks a field of {own}: {error}.") from error


def _check_fit(path: Any, about: dict[str, Any], model: nn.Module, variables: Any) -> None:
    given = jax.ShapeDtypeStruct((1, *about["input"]["shape"]), about["input"]["dtype"])
    try:
        jax.eval_shape(model.apply, variables, given)
    except Exception as error:  # whatever Flax, JAX or the model itself raises
        said = re.split(r"\.?\s*(?:\n|\. |\(https?:|$)", str(error).strip())[0]
        raise InputError(
            f"{path} does not fit {type(model).__name__} and inputs {tuple(given.shape[1:])}: "
            f"{said}."
        ) from error
