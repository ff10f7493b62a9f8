"""Read a model and its variables, or its structure alone, and write the latter as JSON."""

import dataclasses
import json
import os
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from nnlab.errors import InputError
from nnlab.files import container
from nnlab.files.saved import SavedModel
from nnlab.models.zoo import ZOO
from nnlab.paths import reading, user_path
from nnlab.runs.descriptions import Reader, path_of
from nnlab.runs.networks import NAMES, described
from nnlab.runs.networks import export_variables as export_variables
from nnlab.runs.networks import save_model as save_model

_KINDS = {entry.kind.__name__: entry.kind for entry in ZOO.values()}
NAMES.update((kind, name) for name, kind in _KINDS.items())


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
    about = {"format": container.FORMAT, **described(model)}
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
