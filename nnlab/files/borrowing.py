"""Load the weights of a PyTorch model into the same model of nnlab.

The table of names lies beside the model: `torch_names(model)` is {path of a layer in nnlab: name of
the layer in PyTorch}. The arrays of a layer follow from its type:

===========  =============  ========================================================================
nnlab        PyTorch        order
===========  =============  ========================================================================
kernel       weight         [out, in, kh, kw] becomes [kh, kw, in, out], or with groups
                            [groups, kh, kw, in / groups, out / groups]; [out, in] becomes [in, out]
bias         bias           grouped as the kernel
scale, bias  weight, bias   of BatchNorm
mean, var    running_mean,  of BatchNorm
             running_var
===========  =============  ========================================================================

Images are [height, width, channels] in nnlab and [channels, height, width] in PyTorch, so a dense
layer that takes flattened images has its inputs in another order: name it as a `Flattened`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.errors import InputError


class Flattened(NamedTuple):
    """A dense layer after flattened images: its PyTorch name and the size of these images."""

    name: str
    channels: int
    height: int
    width: int


Names = Mapping[str, str | Flattened]

_ARRAYS = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def borrow(variables: Any, state_dict: Mapping[str, np.ndarray], names: Names) -> Any:
    """Fill the variables of a float model with the arrays of a PyTorch state dict.

    Args:
        variables: "params" and, with BatchNorm, "batch_stats": arrays or `jax.ShapeDtypeStruct`s,
            such as `jax.eval_shape(model.init, key, images)` gives.
        state_dict: {name: array}, such as `nnlab.files.read_state_dict` gives.
        names: the model's table of names, `torch_names(model)`.

    Returns:
        The same tree of arrays, in the dtypes of `variables`.

    Raises:
        InputError: an array has no name in the table, no counterpart in the state dict or another
            shape there, or the state dict holds arrays that the model does not have (apart from
            `num_batches_tracked`).
    """
    taken = set()

    def take(path: Any, leaf: Any) -> jax.Array:
        *layer, kind = [key.key for key in path[1:]]
        place = names.get("/".join(layer)) or names.get("/".join(layer[:-1]))  # within a group
        if place is None or kind not in _ARRAYS:
            raise InputError(f"the table of names has no entry for {'/'.join([*layer, kind])}.")
        name = f"{place if isinstance(place, str) else place.name}.{_ARRAYS[kind]}"
        if name not in state_dict:
            raise InputError(f"the state dict lacks {name}, expected for {'/'.join(layer)}.")
        taken.add(name)
        return jnp.asarray(_in_order(name, state_dict[name], kind, place, leaf.shape), leaf.dtype)

    borrowed = jax.tree_util.tree_map_with_path(take, variables)
    left = [n for n in state_dict if n not in taken and not n.endswith("num_batches_tracked")]
    if left:
        raise InputError(
            f"the state dict holds {', '.join(sorted(left)[:3])}{' …' if len(left) > 3 else ''}, "
            "which the model does not have."
        )
    return borrowed


def _in_order(
    name: str, array: np.ndarray, kind: str, place: str | Flattened, shape: tuple[int, ...]
) -> np.ndarray:
    found = array = np.asarray(array)
    groups = shape[0] if kind == "kernel" and len(shape) == 5 else 1
    if kind == "bias" and len(shape) == 2:
        array = array.reshape(shape) if array.size == np.prod(shape) else array
    elif kind == "kernel" and array.ndim == 4 and array.shape[0] % groups == 0:
        array = array.reshape(groups, -1, *array.shape[1:]).transpose(0, 3, 4, 2, 1)
        array = array if len(shape) == 5 else array[0]
    elif kind == "kernel" and array.ndim == 2:
        if isinstance(place, Flattened):
            if array.shape[1] != np.prod(place[1:]):
                raise InputError(
                    f"{name} has shape {list(found.shape)}, expected inputs from {place.channels} "
                    f"channels of {place.height} by {place.width}."
                )
            array = array.reshape(-1, *place[1:]).transpose(0, 2, 3, 1).reshape(len(array), -1)
        array = array.T
    if array.shape != shape:
        raise InputError(
            f"{name} has shape {list(found.shape)}, in the order here {list(array.shape)}, "
            f"which does not fit {list(shape)}."
        )
    return array
