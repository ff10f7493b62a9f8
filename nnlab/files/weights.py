"""Weights alone as one plain safetensors file, which any program of that format reads.

An array is named by its path in the variables, such as `params/Dense_0/kernel`, and stored at its
dtype; nothing else is in the file. The weights of another framework's file come by
`nnlab.files.borrow`, which knows its names and orders of axes.
"""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from nnlab.errors import InputError, needs
from nnlab.files.container import replacing
from nnlab.files.state_dicts import read_state_dict


def save_weights(path: str | os.PathLike[str], variables: Any, *, overwrite: bool = False) -> None:
    """Write the arrays of `variables` to one safetensors file.

    Args:
        path: the file; missing parent folders are created.
        variables: nested dictionaries of arrays, such as {"params": …, "batch_stats": …}.
        overwrite: replace an existing file.

    Raises:
        InputError: the file exists or cannot be written, or there is something else than arrays.
    """
    flat = {"/".join(map(str, keys)): leaf for keys, leaf in flatten_dict(variables).items()}
    arrays = {}
    for name, leaf in jax.device_get(flat).items():
        array = np.asarray(leaf)
        if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
            raise InputError(f"{name} is a {type(leaf).__name__}, expected an array of numbers.")
        arrays[name] = np.ascontiguousarray(array).reshape(array.shape)
    with replacing(path, overwrite) as partial:
        with needs("files"):
            from safetensors.numpy import save_file
        save_file(arrays, partial)


def load_weights(path: str | os.PathLike[str], variables: Any) -> Any:
    """Fill the variables of a model with the arrays of a file of `save_weights`.

    Args:
        path: the file.
        variables: what the model has: arrays or `jax.ShapeDtypeStruct`s, such as
            `jax.eval_shape(model.init, key, images)` gives.

    Returns:
        The same tree of arrays, in the dtypes of `variables`.

    Raises:
        InputError: the file cannot be read, or the model has other arrays or shapes.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(variables)
    wanted = {"/".join(str(key.key) for key in keys): leaf for keys, leaf in leaves}
    given = read_state_dict(path)
    odd = {"lacks": wanted.keys() - given.keys(), "has too many:": given.keys() - wanted.keys()}
    if any(odd.values()):
        said = " and ".join(f"{verb} {_few(names)}" for verb, names in odd.items() if names)
        raise InputError(f"{path} {said}; expected one array for each of the model's paths.")
    for name, leaf in wanted.items():
        if given[name].shape != leaf.shape:
            raise InputError(
                f"{path} has {name} of shape {list(given[name].shape)}, "
                f"expected {list(leaf.shape)}."
            )
    filled = [jnp.asarray(given[name], leaf.dtype) for name, leaf in wanted.items()]
    return jax.tree.unflatten(structure, filled)


def _few(names: Any) -> str:
    return f"{', '.join(sorted(names)[:3])}{' …' * (len(names) > 3)}"
