"""A model's traced program as one flat list of steps, in which every call of a layer is one step.

A layer is a call of a Flax module that has parameters or statistics of its own, and none below.
While the model is traced, `flax.linen.intercept_methods` marks each call by an equation that takes
the layer's input and its output and gives the latter:

    y = layer(x, inside(x))

So is a call of `jax.nn.dot_product_attention`, with its queries, keys, values and mask. Who wants
the numbers evaluates all equations. Who wants to know what the model is made of follows only `x`,
and never meets what is inside the layer. Calls of functions (`jit`, custom gradients,
rematerialisation) are replaced by what they call.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from nnlab.deployment.texts import inputs_of
from nnlab.errors import InputError

_MARK = "layer of nnlab.deployment: "
_ATTENTION = "attention"
_CALLS = {  # primitives that only call a function, and the parameter that holds it
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "remat2": "jaxpr",
}


class Step(NamedTuple):
    """One equation.

    Attributes:
        op: name of its primitive, "layer" or "attention".
        inputs, outputs: numbers of values.
        scope: path of the module that has it, "" for the model; of a layer its own path.
        function: name of the function around it, "" if there is none.
        equation: as JAX has it.
    """

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    scope: str
    function: str
    equation: JaxprEqn


class Call(NamedTuple):
    """A call of a layer.

    Attributes:
        name: path of the module, or the name of its class where it is the model.
        module: with its options.
        path: where its variables are.
        own: names of its own arrays, by collection.
    """

    name: str
    module: nn.Module
    path: tuple[str, ...]
    own: dict[str, tuple[str, ...]]

    @property
    def normalizes(self) -> bool:
        return {"mean", "var"} == set(self.own.get("batch_stats", ()))

    def variables(self, variables: Any) -> dict[str, dict[str, Any]]:
        """Its own arrays in the variables of the model, by collection and name."""
        found: dict[str, dict[str, Any]] = {}
        for kind, names in self.own.items():
            tree: Any = variables.get(kind, {})
            for key in self.path:
                tree = tree.get(key, {})
            found[kind] = {name: tree.get(name) for name in names}
        return found


@dataclasses.dataclass
class Program:
    """A model's program for images of one shape.

    Attributes:
        steps: in order, all of which the result needs.
        outline: the same without what is inside layers.
        layers: by the number of what they give, in order.
        variables: numbers of the leaves of the variables.
        constants: other arrays that are known, by number.
        inputs: numbers of what the model is given, by the names that a network has for them.
        result: number.
        varying: numbers of all values that depend on the inputs.
        shapes: of all values, by number.
    """

    steps: list[Step]
    outline: list[Step]
    layers: dict[int, Call]
    variables: list[int]
    constants: dict[int, Any]
    inputs: dict[str, int]
    result: int
    varying: set[int]
    shapes: dict[int, tuple[int, ...]]

    @property
    def images(self) -> int:
        return self.inputs["images"]

    def evaluate(self, variables: Any, images: Any) -> dict[int, Any]:
        """All values, by number."""
        values = dict(self.constants)
        values.update(zip(self.variables, jax.tree.leaves(variables), strict=True))
        given = inputs_of(images)
        values.update({number: given[name] for name, number in self.inputs.items()})
        for step in self.steps:
            values.update(evaluated(step, [values[number] for number in step.inputs]))
        return values


def evaluated(step: Step, inputs: list[Any]) -> dict[int, Any]:
    """What one step gives, by number."""
    if step.op in ("layer", _ATTENTION):
        return {step.outputs[0]: inputs[-1]}
    primitive = step.equation.primitive
    found = primitive.bind(*inputs, **primitive.get_bind_params(step.equation.params))
    return dict(zip(step.outputs, found if primitive.multiple_results else [found], strict=True))


def traced(model: nn.Module, variables: Any, images: Any) -> Program:
    """The program of `model.apply(variables, images)`, of arrays or their shapes and dtypes.

    Raises:
        InputError: the variables are those of another model, the model does not take such images,
            or it gives something else than one array, alone or in a tree.
    """
    calls: list[Call] = []

    def marked(method: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext):
        y = method(*args, **kwargs)
        module = context.module
        own = _own(module) if context.method_name == "__call__" else {}
        if own and any(map(_has_parts, module.variables.values())):
            own = {}
        if not own:
            return y
        name = "/".join(module.path) or type(module).__name__
        names = {kind: tuple(leaves) for kind, leaves in own.items()}
        call = Call(name, module, module.path, names)
        given = [leaf for leaf in jax.tree.leaves((args, kwargs)) if isinstance(leaf, jax.Array)]
        if len(given) != 1 or not isinstance(y, jax.Array):
            raise InputError(f"{name} takes or gives several values, expected one array each.")
        if jax.tree.map(jnp.shape, call.variables(variables)) != jax.tree.map(jnp.shape, own):
            raise InputError(f"{name} is mapped over groups of channels, expected a single layer.")
        calls.append(call)

        def layer(x, inside):
            return inside

        layer.__name__ = f"{_MARK}{len(calls) - 1}"
        return jax.jit(layer)(given[0], y)

    def apply(variables, images):
        with nn.intercept_methods(marked), _attention_marked():
            return model.apply(variables, images)

    try:
        closed, shape = jax.make_jaxpr(apply, return_shape=True)(variables, images)
    except InputError as error:
        raise InputError(str(error)) from None  # without what JAX adds to it
    except Exception as error:  # whatever Flax, JAX or the model itself raises
        said = str(error).strip().split("\n")[0].rstrip(".")
        raise InputError(
            f"{type(model).__name__} cannot be called with images {_shapes(images)} and these "
            f"variables, expected its own: {said}."
        ) from error
    if len(jax.tree.leaves(shape)) != 1:
        raise InputError(
            f"{type(model).__name__} gives {jax.tree.structure(shape)}, expected one array."
        )
    return _program(closed, calls, tuple(inputs_of(images)))


def _shapes(images: Any) -> Any:
    shapes = [tuple(array.shape) for array in inputs_of(images).values()]
    return shapes[0] if len(shapes) == 1 else shapes


@contextlib.contextmanager
def _attention_marked() -> Iterator[None]:
    """Mark calls of `jax.nn.dot_product_attention` that have nothing but a mask."""
    plain = jax.nn.dot_product_attention

    def marked(query: Any, key: Any, value: Any, bias: Any = None, mask: Any = None, **options):
        y = plain(query, key, value, bias, mask, **options)
        alike = query.ndim == 4 and query.shape == key.shape == value.shape
        given = {"bias": bias, **options}
        more = [name for name, x in given.items() if x is not None and x is not False]
        if not alike or more:
            raise InputError(
                f"the model has an attention with {', '.join(more) or 'keys of another shape'}, "
                "expected that of an encoder, with a mask of padding at most."
            )

        def attention(*given):
            return given[-1]

        attention.__name__ = f"{_MARK}{_ATTENTION}"
        masks = () if mask is None else (mask,)
        return jax.jit(attention)(query, key, value, *masks, y)

    jax.nn.dot_product_attention = marked
    try:
        yield
    finally:
        jax.nn.dot_product_attention = plain


def _has_parts(tree: Any) -> bool:
    return any(hasattr(leaf, "items") for leaf in tree.values())


def _own(module: nn.Module) -> dict[str, dict[str, Any]]:
    """The arrays of a module that belong to none of its submodules, by collection and name."""
    kinds = {
        kind: {name: leaf for name, leaf in tree.items() if not hasattr(leaf, "items")}
        for kind, tree in module.variables.items()
        if kind != "intermediates"
    }
    return {kind: leaves for kind, leaves in kinds.items() if leaves}


def _program(closed: ClosedJaxpr, calls: list[Call], names: tuple[str, ...]) -> Program:
    jaxpr, shapes = closed.jaxpr, [getattr(aval, "shape", ()) for aval in closed.in_avals]
    flat = _Flat()
    numbers = {var: flat.number(shape) for var, shape in zip(jaxpr.invars, shapes, strict=True)}
    given = [numbers[var] for var in jaxpr.invars]
    variables, inputs = given[: -len(names)], dict(zip(names, given[-len(names) :], strict=True))
    constants = zip(jaxpr.constvars, closed.consts, strict=True)
    numbers |= {var: flat.constant(value) for var, value in constants}
    flat.add(jaxpr, numbers, "", "")
    result = flat.read(jaxpr.outvars[0], numbers)
    layers: dict[int, Call] = {}
    steps = []
    for step in flat.steps:
        if step.op == "layer":
            layers[step.outputs[0]] = call = calls[int(step.function)]
            step = step._replace(scope=call.name, function="")
        steps.append(step)
    varying = set(inputs.values())
    for step in steps:
        if varying & set(step.inputs):
            varying |= set(step.outputs)
    if result not in varying:
        raise InputError("the model gives the same for all images, expected a function of them.")
    outline = list(_needed(steps, result, varying))
    called = [step.outputs[0] for step in outline if step.op == "layer"]
    return Program(
        steps=list(_needed(steps, result)),
        outline=outline,
        layers={number: layers[number] for number in called if number in varying},
        variables=variables,
        constants=flat.constants,
        inputs=inputs,
        result=result,
        varying=varying,
        shapes=flat.shapes,
    )


def _needed(steps: list[Step], result: int, varying: set[int] | None = None) -> Iterator[Step]:
    """The steps that the result needs; if `varying` is given, without those inside layers."""
    needed, kept = {result}, []
    for step in reversed(steps):
        if needed & set(step.outputs):
            kept.append(step)
            outside = step.op in ("layer", _ATTENTION) and varying and step.outputs[0] in varying
            needed |= set(step.inputs[:-1] if outside else step.inputs)
    return reversed(kept)


class _Flat:
    """Collects the steps of a program, and numbers its values."""

    def __init__(self):
        self.steps: list[Step] = []
        self.constants: dict[int, Any] = {}
        self.shapes: dict[int, tuple[int, ...]] = {}

    def number(self, shape: tuple[int, ...]) -> int:
        self.shapes[len(self.shapes)] = tuple(shape)
        return len(self.shapes) - 1

    def constant(self, value: Any) -> int:
        number = self.number(jnp.shape(value))
        self.constants[number] = value
        return number

    def read(self, atom: Any, numbers: dict[Any, int]) -> int:
        return self.constant(atom.val) if isinstance(atom, Literal) else numbers[atom]

    def add(self, jaxpr: Jaxpr, numbers: dict[Any, int], scope: str, function: str) -> None:
        for equation in jaxpr.eqns:
            op, inputs = (
                equation.primitive.name,
                [self.read(x, numbers) for x in equation.invars],
            )
            inner = _joined(scope, str(equation.source_info.name_stack))
            called = str(equation.params.get("name", ""))
            if op == "split" or (op in _CALLS and not called.startswith(_MARK)):
                body = equation.params[_CALLS[op]] if op in _CALLS else _slices(equation)
                called = called or body.debug_info.func_name or ""
                known: dict[Any, int] = {}
                if isinstance(body, ClosedJaxpr):
                    pairs = zip(body.jaxpr.constvars, body.consts, strict=True)
                    known = {var: self.constant(value) for var, value in pairs}
                    body = body.jaxpr
                known.update(zip(body.invars, inputs, strict=True))
                self.add(body, known, inner, called or function)
                outputs = [self.read(x, known) for x in body.outvars]
                numbers.update(zip(equation.outvars, outputs, strict=True))
                continue
            avals: list[Any] = [x.aval for x in equation.outvars]
            found = [self.number(aval.shape) for aval in avals]
            numbers.update(zip(equation.outvars, found, strict=True))
            if called.startswith(_MARK):
                op, function_ = "layer", called.removeprefix(_MARK)
                if function_ == _ATTENTION:
                    op, function_ = _ATTENTION, function
            else:
                function_ = function
            path = inner.partition("/")[2]  # without the name of the model
            step = Step(op, tuple(inputs), tuple(found), path, function_, equation)
            self.steps.append(step)


def _slices(equation: JaxprEqn) -> ClosedJaxpr:
    """A split as slices, of which each is a step with one result."""
    axis, sizes = equation.params["axis"], equation.params["sizes"]
    ends = list(itertools.accumulate(sizes))

    def split(x):
        return [
            lax.slice_in_dim(x, end - size, end, axis=axis)
            for end, size in zip(ends, sizes, strict=True)
        ]

    return jax.make_jaxpr(split)(equation.invars[0].aval)


def _joined(*scopes: str) -> str:
    return "/".join(scope for scope in scopes if scope)
