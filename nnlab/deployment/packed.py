"""A network of ternary dense layers with their weights packed, 1.6 bits or 2 each.

    packed = pack(model, variables)
    save_model("packed.safetensors", packed.model, packed.variables, symbols)

gives a network of the same class that is called in the same way and that `nnlab.models.load_model`
reads again: each ternary layer (b1.58, its binary forerunner b1, Ternary Weight Networks) is a
`nnlab.layers.PackedTernaryDense`, which holds the codes and the scale that training multiplied
with. Nothing derives one from the other again: the scale of weights that are ternary already would
be another one (`nnlab.ops.bitnet`).

In float32 the sums of integers are to the bit those of training, and so is what the scales make of
them. Layers of floats stay as they are, or lie in the file as bfloat16 and compute in float32.
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import DTypeLike

from nnlab.errors import InputError
from nnlab.files import container
from nnlab.files.saved import SavedModel
from nnlab.layers import (
    BitNetConv,
    BitNetDense,
    Conv,
    PackedTernaryDense,
    ProductConv,
    ProductDense,
)
from nnlab.layers.arithmetic import Arithmetic
from nnlab.ops.packed_ternary import pack_ternary
from nnlab.ops.scaled import ScaledQuantizer, export_weights
from nnlab.ops.ternary import ternary_conv, ternary_weights
from nnlab.paths import reading, user_path

REST = (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16))


def pack(
    model: nn.Module,
    variables: Any,
    inputs: Any = None,
    *,
    per_byte: Literal[4, 5] = 5,
    rest: DTypeLike = jnp.float32,
) -> SavedModel:
    """Pack the ternary dense layers of a network.

    Args:
        model: a network whose fields say in what `Arithmetic` its dense layers compute, such as
            `Llama(arithmetic=BITNET)`.
        variables: its trained variables, float32.
        inputs: a batch of inputs, of which only shape and dtype matter; by default one symbol.
        per_byte: ternary weights in a byte: 5 take less memory, 4 unpack faster.
        rest: dtype in which all other numbers are stored but the scales, float32 or bfloat16.

    Returns:
        The network of packed layers and its variables.

    Raises:
        InputError: there is no ternary dense layer, one cannot be packed (a convolution, or a layer
            that no arithmetic of the network's fields has made), a weight is not finite, or an
            argument is none of these.
    """
    if per_byte not in (4, 5):
        raise InputError(f"pack packs 4 or 5 weights in a byte, not {per_byte}.")
    if jnp.dtype(rest) not in REST:
        raise InputError(f"the rest is stored as float32 or bfloat16, not {jnp.dtype(rest)}.")
    inputs = jnp.zeros((1, 1), jnp.int32) if inputs is None else inputs
    layers = _ternary_layers(model, variables, inputs)
    if not layers:
        raise InputError(f"this {type(model).__name__} has no ternary dense layer to pack.")
    leaves: dict[Any, Any] = flatten_dict(variables)
    for path, layer in layers.items():
        kernel = leaves.pop(("params", *path, layer.kernel_name))
        if not jnp.isfinite(kernel).all():
            raise InputError(f"{'/'.join(path)} has weights that are not finite.")
        quantizer: Any = _quantizer(layer)
        weights = pack_ternary(*export_weights(kernel, quantizer), per_byte=per_byte)
        leaves["params", *path, "packed"], leaves["params", *path, "scale"] = (
            weights.packed,
            weights.scale,
        )
    scales = {("params", *path, "scale") for path in layers}
    stored = {
        path: leaf.astype(rest)
        if path not in scales and jnp.issubdtype(leaf.dtype, jnp.floating)
        else leaf
        for path, leaf in ((path, jnp.asarray(leaf)) for path, leaf in leaves.items())
    }
    packed = _with_packed_layers(model, per_byte)
    tree = unflatten_dict(stored)
    try:
        jax.eval_shape(packed.apply, tree, inputs)
    except Exception as error:  # whatever Flax or the model itself raises
        raise InputError(
            f"{type(model).__name__} has ternary layers, such as {'/'.join(next(iter(layers)))}, "
            "that no arithmetic of its fields has made, so that they cannot be packed."
        ) from error
    return SavedModel(packed, tree, {})


def file_sizes(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Tell what the bytes of a file of `nnlab.models.save_model` are, as rows of a table.

    Returns:
        Of packed weights, of their scales, of all other numbers and of the header, the name under
        "part", how many "numbers" they are, and their "bytes"; the last row is their sum, which is
        the size of the file.

    Raises:
        InputError: there is no such file, or it is damaged.
    """
    arrays = container.read(path).arrays
    packed = {name.removesuffix("packed") for name in arrays if name.endswith("/packed")}
    groups: dict[str, list[np.ndarray]] = {
        "packed weights": [array for name, array in arrays.items() if name.endswith("/packed")],
        "their scales": [arrays[f"{name}scale"] for name in packed],
        "other numbers": [
            array
            for name, array in arrays.items()
            if not name.endswith("/packed") and name.removesuffix("scale") not in packed
        ],
    }
    rows: list[dict[str, Any]] = [
        {
            "part": part,
            "numbers": sum(array.size for array in found),
            "bytes": sum(array.nbytes for array in found),
        }
        for part, found in groups.items()
    ]
    path = user_path(path)
    with reading(path):
        size = path.stat().st_size
    header = size - sum(row["bytes"] for row in rows)
    return [*rows, {"part": "header", "bytes": header}, {"part": "file", "bytes": size}]


def _quantizer(layer: nn.Module) -> ScaledQuantizer | None:
    """What makes codes -1, 0 and 1 of a layer's weights; None of any other layer."""
    if isinstance(layer, BitNetDense | BitNetConv):
        return layer.quantizer
    if isinstance(layer, ProductDense | ProductConv) and layer.op is ternary_conv:
        return ternary_weights
    return None


def _ternary_layers(model: nn.Module, variables: Any, inputs: Any) -> dict[tuple[str, ...], Any]:
    """The ternary layers that an inference calls, by path."""
    found: dict[tuple[str, ...], Any] = {}

    def look(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        layer: Any = context.module
        if context.method_name == "__call__" and _quantizer(layer) is not None:
            path = tuple(layer.scope.path)
            if not isinstance(layer, ProductDense):
                raise InputError(
                    f"{'/'.join(path)} is a convolution, and only dense layers can be packed."
                )
            found[path] = layer
        return call(*args, **kwargs)

    with nn.intercept_methods(look):
        jax.eval_shape(model.apply, variables, inputs)
    return found


def _with_packed_layers(model: nn.Module, per_byte: Literal[4, 5]) -> nn.Module:
    """The network with packed layers in place of ternary ones, which computes in float32."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(model):
        value = getattr(model, field.name, None)
        if isinstance(value, Arithmetic) and _quantizer(layer := value.dense(1)) is not None:
            options: dict[str, Any] = {
                "per_byte": per_byte,
                "rounded": isinstance(layer, BitNetDense),
            }
            if isinstance(layer, BitNetDense):
                options |= {"norm": layer.norm, "norm_epsilon": layer.norm_epsilon}
            dense = functools.partial(PackedTernaryDense, **options)
            # No layer of this arithmetic is a convolution, and a file could not name every one.
            changed[field.name] = dataclasses.replace(
                value, name=f"{value.name}_packed", dense=dense, conv=Conv
            )
    if getattr(model, "dtype", jnp.float32) is None:
        changed["dtype"] = jnp.float32
    return model.clone(**changed)
