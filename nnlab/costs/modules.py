"""Find the layers of a Flax model, for `nnlab.costs.hardware`, while its program is traced.

A layer is a call of a module that calls no other module. Its operations are counted from its own
traced program, its weights take the bytes that `nnlab.costs.stored_bytes` counts, and the kind of
its sums follows from what one term of its kernel costs: a multiplication and an addition, two
additions, one addition, or an XNOR and an addition.

A layer inside a loop, such as the products of a recurrent cell, has the operations, inputs and
outputs of all steps. How often the loop runs is read from the program itself: each call leaves a
name on its output, and the name is counted wherever it appears. (Flax also traces the body of a
loop once for its shapes alone; that call leaves its name nowhere and is dropped.) It leaves one on
its inputs too, so that `nnlab.costs.connections` can follow the data from call to call.

Modules mapped by `flax.linen.vmap`, such as the groups of a grouped convolution, are traced once,
with the weights of one of them. They are not layers: the module that maps them is, for all of them
together.
"""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Jaxpr, jaxprs_in_params

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
    """One call of a module, with shapes in place of arrays.

    Attributes:
        path: names of the modules from the model to this one; () for the model itself.
        module: the module, unbound, with its options.
        variables: its own variables, by collection.
        arguments: (args, kwargs).
        output: what it returned.
        is_layer: whether it called no other module, apart from mapped ones.
        terms: terms of one sum if it is a layer with one kernel, else 0.
        is_mapped: whether its variables are those of one of many.
        mark: name that the call leaves on its output in the program; "" if that holds no array.
            The rest of the output has it with "other ", its inputs with "into " before it.
        times: how often the program runs it.
    """

    path: tuple[str, ...]
    module: nn.Module
    variables: Any
    arguments: Any
    output: Any
    is_layer: bool
    terms: int
    is_mapped: bool
    mark: str
    times: int = 1


def module_calls(model: nn.Module, variables: Any, inputs: Any) -> list[Call]:
    """Return the calls of all modules except mapped ones, in the order in which they start.

    Args:
        model: called as `model.apply(variables, inputs)` for inference; its call comes first.
        variables: its parameters and statistics, arrays or `jax.ShapeDtypeStruct`s.
        inputs: a batch, such as [batch, height, width, channels], the same.
    """
    return traced_calls(model, variables, inputs)[0]


def traced_calls(model: nn.Module, variables: Any, inputs: Any) -> tuple[list[Call], Jaxpr]:
    """Return the calls of `module_calls`, and the program that has their marks.

    Its inputs are the leaves of `(variables, inputs)`.
    """
    calls: list[Call] = []
    marks = map("call {}".format, itertools.count())

    def record(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        place, mark = len(calls), next(marks)
        output = call(*_marked(args, f"into {mark}"), **_marked(kwargs, f"into {mark}"))
        inside, path = calls[place:], context.module.path
        module, own = context.module.unbind()
        is_layer = all(other.is_mapped for other in inside)
        kernels = [other.terms for other in inside if other.terms] if inside else _terms(own)
        marked = _marked(output, mark, f"other {mark}")
        calls[place:] = [
            Call(
                path,
                module,
                *_shapes((own, (args, kwargs), output)),
                is_layer=is_layer,
                terms=kernels[0] if is_layer and len(kernels) == 1 else 0,
                is_mapped=is_layer and _is_mapped(own, variables, path),
                mark=mark if any(map(_is_array, jax.tree.leaves(output))) else "",
            ),
            *([] if is_layer else inside),
        ]
        return marked

    with nn.intercept_methods(record):
        program = jax.make_jaxpr(lambda *given: model.apply(*given))(variables, inputs)
    times = Counter({"": 1})
    for mark, number in _marks(program.jaxpr, 1):
        times[mark] += number
    calls = [call._replace(times=times[call.mark]) for call in calls if not call.is_mapped]
    return [call for call in calls if call.times], program.jaxpr


def model_layers(model: nn.Module, variables: Any, inputs: Any) -> tuple[Layer, ...]:
    """Return the layers of `model` in the order of their calls.

    Args:
        model, variables, inputs: as for `module_calls`.

    Returns:
        The layers, and at the end one called "between layers" with the operations outside them:
        activations, pooling, shortcuts, gates. All operations add up to
        `nnlab.costs.count(model.apply, variables, inputs)`.
    """
    return layers_of(module_calls(model, variables, inputs), count(model.apply, variables, inputs))


def layers_of(calls: Sequence[Call], whole: Counts) -> tuple[Layer, ...]:
    """Return the same for the calls of a model and the operations of its whole program."""
    layers = [_layer(call) for call in calls if call.is_layer]
    for layer in layers:
        whole = Counts(*map(_difference, whole, layer.operations))
    return (*layers, Layer("between layers", "-", whole))


def _marked(tree: Any, mark: str, others: str | None = None) -> Any:
    """The tree with a name on its first array, and on its others the same or another one."""
    leaves, structure = jax.tree.flatten(tree)
    for place, leaf in enumerate(leaves):
        if _is_array(leaf):
            leaves[place] = checkpoint_name(leaf, mark)
            mark = others or mark
    return structure.unflatten(leaves)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _marks(jaxpr: Jaxpr, times: int) -> Iterator[tuple[str, int]]:
    """Each mark in the program, and how often it is passed."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "name":
            yield equation.params["name"], times
        loops = equation.params["length"] if equation.primitive.name == "scan" else 1
        for inner in jaxprs_in_params(equation.params):
            yield from _marks(inner, times * loops)


def _terms(own: Any) -> list[int]:
    """Terms of one sum, for each kernel."""
    leaves = jax.tree_util.tree_leaves_with_path(own)
    kernels = [leaf for path, leaf in leaves if str(path[-1].key).endswith("kernel")]
    return [math.prod(kernel.shape[:-1]) for kernel in kernels]


def _is_mapped(own: Any, variables: Any, path: tuple[str, ...]) -> bool:
    """Whether a module's variables have other shapes inside it than in the model's."""
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

    once = count(apply, call.variables, *arrays)
    operations = Counts(*({name: call.times * n for name, n in kind.items()} for kind in once))
    stored = jax.tree.leaves(bytes_by_leaf(apply, call.variables, *arrays))
    weights = zip(jax.tree.leaves(call.variables), stored, strict=True)
    return Layer(
        name="/".join(call.path),
        op=type(call.module).__name__,
        operations=operations,
        weights=tuple(Numbers(leaf.size, 8 * bytes_) for leaf, bytes_ in weights),
        inputs=_numbers(arrays, call.times),
        outputs=_numbers(call.output, call.times),
        kind=_kind(once, call.terms * sum(y.size for y in jax.tree.leaves(call.output))),
        terms=call.terms,
    )


def _kind(operations: Counts, terms: int) -> Kind | None:
    words = set(operations.bit_operations) - {"bool"}
    if terms == 0 or any(operations.bit_operations[dtype] >= terms for dtype in words):
        return None
    totals = operations.totals()
    del totals["unknown"]
    return _KINDS.get(tuple(total // terms for total in totals.values()))


def _numbers(tree: Any, times: int) -> tuple[Numbers, ...]:
    return tuple(
        Numbers(times * leaf.size, times * leaf.size * 8 * jnp.dtype(leaf.dtype).itemsize)
        for leaf in jax.tree.leaves(tree)
    )


def _difference(whole: dict[str, int], part: dict[str, int]) -> dict[str, int]:
    found = {name: number - part.get(name, 0) for name, number in whole.items()}
    return {name: number for name, number in found.items() if number}
