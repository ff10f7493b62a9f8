"""The layers of a Flax model for `nnlab.costs.hardware`, found while its program is traced.

A layer is a call of a module that calls no other. Its operations are counted from its own traced
program, its weights take the bytes that `nnlab.costs.stored_bytes` counts, and what its sums are
is read from what one term of its kernel costs: a multiplication and an addition, two additions, one
addition, or an XNOR and an addition.

Modules mapped by `flax.linen.vmap`, such as the groups of a grouped convolution, are traced once
and with the weights of one of them. They are no layers: all of them together are that of the module
that maps them. Modules in a loop, such as a recurrent cell, have the operations of one step, each
time that Flax traces them; the other steps are in "between layers".
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from nnlab.costs.counting import Counts, count
from nnlab.costs.hardware import Kind, Layer, Numbers
from nnlab.costs.storage import bytes_by_leaf

# Multiplications, additions, comparisons, bit operations, other functions of one term.
_KINDS: dict[tuple[int, ...], Kind] = {
    (1, 1, 0, 0, 0): "product",
    (0, 2, 0, 0, 0): "adder",
    (0, 1, 0, 0, 0): "signed",
    (0, 1, 0, 1, 0): "binary",
}


class Call(NamedTuple):
    """One call of a module.

    Attributes:
        path: names of the modules from the model to this one; of the model ().
        module: unbound, with the options that it was called with.
        variables: its own, by collection.
        arguments: (args, kwargs).
        output: what it returned; here and above, shapes are in place of arrays.
        is_layer: whether it called no other module, or mapped ones alone.
        terms: of one sum, if it is a layer with one kernel, else 0.
        is_mapped: whether its variables are those of one of many.
    """

    path: tuple[str, ...]
    module: nn.Module
    variables: Any
    arguments: Any
    output: Any
    is_layer: bool
    terms: int
    is_mapped: bool


def module_calls(model: nn.Module, variables: Any, images: Any) -> list[Call]:
    """The calls of all modules but mapped ones, `model` first, in the order in which they start.

    Args:
        model: called as `model.apply(variables, images)` for inference.
        variables: its parameters and statistics, arrays or `jax.ShapeDtypeStruct`s.
        images: [batch, height, width, channels], the same.
    """
    calls: list[Call] = []

    def record(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        place = len(calls)
        output = call(*args, **kwargs)
        inside, path = calls[place:], context.module.path
        module, own = context.module.unbind()
        is_layer = all(other.is_mapped for other in inside)
        kernels = [other.terms for other in inside if other.terms] if inside else _terms(own)
        calls[place:] = [
            Call(
                path,
                module,
                *_shapes((own, (args, kwargs), output)),
                is_layer=is_layer,
                terms=kernels[0] if is_layer and len(kernels) == 1 else 0,
                is_mapped=is_layer and _is_mapped(own, variables, path),
            ),
            *([] if is_layer else inside),
        ]
        return output

    with nn.intercept_methods(record):
        jax.eval_shape(lambda *given: model.apply(*given), variables, images)
    return [call for call in calls if not call.is_mapped]


def model_layers(model: nn.Module, variables: Any, images: Any) -> tuple[Layer, ...]:
    """The layers of `model` in the order of their calls.

    Args:
        model, variables, images: as of `module_calls`.

    Returns:
        The layers, and at the end one called "between layers" with the operations outside of them:
        activations, pooling, shortcuts. All operations add up to
        `nnlab.costs.count(model.apply, variables, images)`.
    """
    layers = [_layer(call) for call in module_calls(model, variables, images) if call.is_layer]
    rest = count(model.apply, variables, images)
    for layer in layers:
        rest = Counts(*map(_difference, rest, layer.operations))
    return (*layers, Layer("between layers", "-", rest))


def _terms(own: Any) -> list[int]:
    """Of one sum, for each kernel."""
    leaves = jax.tree_util.tree_leaves_with_path(own)
    kernels = [leaf for path, leaf in leaves if str(path[-1].key).endswith("kernel")]
    return [math.prod(kernel.shape[:-1]) for kernel in kernels]


def _is_mapped(own: Any, variables: Any, path: tuple[str, ...]) -> bool:
    """Whether a module's variables are another shape inside it than in the model's."""
    for collection, inside in own.items():
        stored = functools.reduce(lambda tree, name: tree[name], path, variables[collection])
        if jax.tree.map(jnp.shape, inside) != jax.tree.map(jnp.shape, stored):
            return True
    return False


def _shapes(tree: Any) -> Any:
    def shape(leaf: Any) -> Any:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if hasattr(leaf, "shape") else leaf

    return jax.tree.map(shape, tree)


def _layer(call: Call) -> Layer:
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
    weights = zip(jax.tree.leaves(call.variables), stored, strict=True)
    outputs = _numbers(call.output)
    return Layer(
        name="/".join(call.path),
        op=type(call.module).__name__,
        operations=operations,
        weights=tuple(Numbers(leaf.size, 8 * bytes_) for leaf, bytes_ in weights),
        inputs=_numbers(arrays),
        outputs=outputs,
        kind=_kind(operations, call.terms * sum(y.size for y in outputs)),
        terms=call.terms,
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
