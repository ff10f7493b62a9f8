"""The layers of a Flax model for `nnlab.analysis.hardware`, found while its program is traced.

A layer is a call of a module that calls no other. Its operations are counted from its own traced
program, its weights take the bytes that `nnlab.analysis.stored_bytes` counts, and what its sums are
is read from what one term of its kernel costs: a multiplication and an addition, two additions, one
addition, or an XNOR and an addition.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from nnlab.analysis.counting import Counts, count
from nnlab.analysis.hardware import Kind, Layer, Numbers
from nnlab.analysis.storage import bytes_by_leaf

# Multiplications, additions, comparisons, bit operations, other functions of one term.
_KINDS: dict[tuple[int, ...], Kind] = {
    (1, 1, 0, 0, 0): "product",
    (0, 2, 0, 0, 0): "adder",
    (0, 1, 0, 0, 0): "signed",
    (0, 1, 0, 1, 0): "binary",
}


class _Call(NamedTuple):
    path: tuple[str, ...]
    module: nn.Module
    variables: Any
    arguments: Any  # (args, kwargs) with shapes in place of arrays
    output: Any


def model_layers(model: nn.Module, variables: Any, images: Any) -> tuple[Layer, ...]:
    """The layers of `model` in the order of their calls.

    Args:
        model: called as `model.apply(variables, images)` for inference.
        variables: its parameters and statistics, arrays or `jax.ShapeDtypeStruct`s.
        images: [batch, height, width, channels], the same.

    Returns:
        The layers, and at the end one called "between layers" with the operations outside of them:
        activations, pooling, shortcuts. All operations add up to
        `nnlab.analysis.count(model.apply, variables, images)`.
    """
    calls: list[_Call] = []

    def record(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        before = len(calls)
        output = call(*args, **kwargs)
        if context.method_name == "__call__" and len(calls) == before:
            module, own = context.module.unbind()
            shapes = _shapes((own, (args, kwargs), output))
            calls.append(_Call(context.module.path, module, *shapes))
        return output

    with nn.intercept_methods(record):
        jax.eval_shape(model.apply, variables, images)
    layers = [_layer(call) for call in calls]
    rest = count(model.apply, variables, images)
    for layer in layers:
        rest = Counts(*map(_difference, rest, layer.operations))
    return (*layers, Layer("between layers", "-", rest))


def _shapes(tree: Any) -> Any:
    def shape(leaf: Any) -> Any:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if hasattr(leaf, "shape") else leaf

    return jax.tree.map(shape, tree)


def _layer(call: _Call) -> Layer:
    leaves, structure = jax.tree.flatten(call.arguments)
    given = [isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves]
    arrays = [leaf for leaf, is_array in zip(leaves, given, strict=True) if is_array]

    def apply(variables: Any, *values: jax.Array) -> Any:
        of = iter(values)
        filled = [
            next(of) if is_array else leaf for leaf, is_array in zip(leaves, given, strict=True)
        ]
        args, kwargs = structure.unflatten(filled)
        return call.module.apply(variables, *args, **kwargs)

    operations = count(apply, call.variables, *arrays)
    stored = jax.tree.leaves(bytes_by_leaf(apply, call.variables, *arrays))
    parameters = jax.tree_util.tree_leaves_with_path(call.variables)
    outputs = _numbers(call.output)
    kernels = [leaf for path, leaf in parameters if str(path[-1].key).endswith("kernel")]
    terms = math.prod(kernels[0].shape[:-1]) if len(kernels) == 1 else 0
    return Layer(
        name="/".join(call.path),
        op=type(call.module).__name__,
        operations=operations,
        weights=tuple(
            Numbers(leaf.size, 8 * bytes_)
            for (_, leaf), bytes_ in zip(parameters, stored, strict=True)
        ),
        inputs=_numbers(arrays),
        outputs=outputs,
        kind=_kind(operations, terms * sum(y.size for y in outputs)),
        terms=terms,
    )


def _kind(operations: Counts, terms: int) -> Kind | None:
    words = set(operations.bit_operations) - {"bool"}
    if terms == 0 or any(operations.bit_operations[dtype] >= terms for dtype in words):
        return None
    totals = operations.totals()
    del totals["unknown"]
    return _KINDS.get(tuple(total // terms for total in totals.values()))


def _numbers(tree: Any) -> tuple[Numbers, ...]:
    return tuple(
        Numbers(leaf.size, leaf.size * 8 * jnp.dtype(leaf.dtype).itemsize)
        for leaf in jax.tree.leaves(tree)
    )


def _difference(whole: dict[str, int], part: dict[str, int]) -> dict[str, int]:
    found = {name: number - part.get(name, 0) for name, number in whole.items()}
    return {name: number for name, number in found.items() if number}
