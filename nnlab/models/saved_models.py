"""A model of the zoo and its variables in one file, from which alone it can be built again.

Weights that the model uses only through their signs are stored as signs, eight to a byte; the
traced program says which these are, as it does for `nnlab.costs.stored_bytes`. All other arrays are
stored at their dtype. The file of a float or binary network therefore has as many bytes as that
function counts, plus the header. Weights of any other quantiser (ternary weights, for example) are
stored as the real numbers from which the model quantises them again.

The header (`nnlab.files.container`) has these keys:

========  =======================================================================================
"model"   name of the class
"fields"  arguments of its constructor: numbers, texts, None and lists of these as they are; an
          arithmetic as {"arithmetic": "BINARY"}, by its name in `nnlab.arithmetics`; a class of
          layers as {"layer": "LSTMCell"}, by its name in `nnlab.layers`; a dtype as
          {"dtype": "bfloat16"}
"input"   shape and dtype of one input
"notes"   whatever else the network's user needs
========  =======================================================================================

Arrays are named by their paths, such as params/BinaryConv_0/binary_kernel.
"""

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from nnlab import arithmetics, layers
from nnlab.arithmetics import NAMED, Arithmetic
from nnlab.costs.storage import kept_as_signs
from nnlab.errors import InputError
from nnlab.files import container
from nnlab.files.packing import SIGNS
from nnlab.files.saved import SavedModel
from nnlab.models.zoo import ZOO

_KINDS = {entry.kind.__name__: entry.kind for entry in ZOO.values()}
_PLAIN = (bool, int, float, str, type(None))


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
        model: a model of `nnlab.models` whose arithmetics are values of `nnlab.arithmetics`.
        variables: its parameters and statistics.
        image: a batch of one input, such as [1, height, width, channels]; an array or a
            `jax.ShapeDtypeStruct`.
        notes: anything else that its user needs and JSON can hold, such as names of classes, a
            vocabulary, or how inputs are prepared.
        overwrite: replace an existing file.

    Raises:
        InputError: the file exists or cannot be written, or a header cannot describe the model.
    """
    arrays = export_variables(model, variables, image)
    about = {"model": _name_of(model), "fields": _fields(model)}
    about["input"] = {"shape": image.shape[1:], "dtype": jnp.dtype(image.dtype).name}
    about["notes"] = dict(notes or {})
    codes = {name: SIGNS for name, array in arrays.items() if array.dtype == np.int8}
    container.write(path, arrays, about=about, codes=codes, overwrite=overwrite)


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


def _name_of(model: nn.Module) -> str:
    name = type(model).__name__
    if _KINDS.get(name) is not type(model):
        raise InputError(
            f"a file cannot name {type(model).__qualname__}; expected a model of nnlab.models."
        )
    return name


def _fields(model: nn.Module) -> dict[str, Any]:
    names = [f.name for f in dataclasses.fields(model) if f.init and f.name not in _LINEN]
    return {name: _described(name, getattr(model, name)) for name in names}


_ROOMS = {"arithmetic": (arithmetics, Arithmetic), "layer": (layers, type)}
_LINEN = ("parent", "name")  # every Linen module has these


def _described(name: str, value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, tuple):
        return [_described(name, part) for part in value]
    if isinstance(value, Arithmetic):
        for known, arithmetic in (vars(arithmetics) | NAMED).items():
            if arithmetic is value:
                return {"arithmetic": known}
    elif isinstance(value, type) and getattr(layers, value.__name__, None) is value:
        return {"layer": value.__name__}
    else:
        with contextlib.suppress(TypeError, ValueError):
            return {"dtype": jnp.dtype(value).name}
    raise InputError(
        f"a file cannot name {name}={value!r}; expected numbers, texts, dtypes, values of"
        " nnlab.arithmetics or classes of nnlab.layers."
    )


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
