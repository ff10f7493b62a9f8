"""Read a model of the zoo and its variables from the file that `nnlab.runs.networks` wrote."""

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from nnlab import arithmetics, layers
from nnlab.arithmetics import NAMED, Arithmetic
from nnlab.errors import InputError
from nnlab.files import container
from nnlab.files.saved import SavedModel
from nnlab.models.zoo import ZOO
from nnlab.runs.networks import export_variables as export_variables
from nnlab.runs.networks import save_model as save_model

_KINDS = {entry.kind.__name__: entry.kind for entry in ZOO.values()}
_ROOMS = {"arithmetic": (arithmetics, Arithmetic), "layer": (layers, type)}


def load_model(path: str | os.PathLike[str]) -> SavedModel:
    """Read a file of `save_model`; signs come back as float32 -1 and +1.

    Raises:
        InputError: the file does not exist, is damaged, or holds no model of `nnlab.models`.
    """
    about, arrays = container.read(path)
    kind = _KINDS.get(str(about.get("model")))
    if kind is None:
        raise InputError(
            f"{path} holds {about.get('model', 'an integer network')!r}; expected a model of"
            " nnlab.models."
        )
    fields = {name: _value(field) for name, field in about["fields"].items()}
    if unknown := fields.keys() - {field.name for field in dataclasses.fields(kind)}:
        raise InputError(f"{path} has {', '.join(sorted(unknown))}, which {kind.__name__} lacks.")
    floats = {
        name: array.astype(np.float32) if array.dtype == np.int8 else array
        for name, array in arrays.items()
    }
    variables = jax.tree.map(jnp.asarray, unflatten_dict(floats, sep="/"))
    return SavedModel(kind(**fields), variables, about.get("notes", {}))


def _value(described: Any) -> Any:
    if isinstance(described, list):
        return tuple(map(_value, described))
    if not isinstance(described, dict):
        return described
    ((kind, name),) = described.items()
    if kind == "dtype":
        return jnp.dtype(name)
    if kind not in _ROOMS:
        raise InputError(f"the file names a {kind}; expected one of {', '.join(_ROOMS)} or dtype.")
    room, wanted = _ROOMS[kind]
    value = getattr(room, name, None) or NAMED.get(name)
    if not isinstance(value, wanted):
        raise InputError(f"{room.__name__} has no {name}; expected one that this nnlab knows.")
    return value
