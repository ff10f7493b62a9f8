"""A traced function as a flat list of equations, which is what the printer prints.

JAX traces a function to a jaxpr, whose equations may call further jaxprs: jitted functions, custom
rules, and the bodies that nnlab's kernels stand for. Here all calls are entered, so that nothing
but primitives is left, and equations that no result depends on are dropped. Kernels are traced with
their XLA bodies.

Sizes may be names: `shapes("b,i", "i,o")` gives a matrix of b times i and one of i times o, and the
program then serves every b, i and o.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.extend.core import Literal

from nnlab import kernels
from nnlab.kernels.derivatives import program_of

Size = Any  # an int, or a name or polynomial of names of `jax.export`

_CALLS = ("jit", "custom_jvp_call", "custom_vjp_call", "closed_call", "remat2", "checkpoint")
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")


class Value(NamedTuple):
    """A result of an equation, or an argument.

    Attributes:
        number: one for each value of a program.
        shape: sizes, some of which may be names.
        dtype: of a single element.
    """

    number: int
    shape: tuple[Size, ...]
    dtype: np.dtype


Operand = Value | np.ndarray


class Equation(NamedTuple):
    """One primitive and what it reads and writes."""

    primitive: str
    params: dict[str, Any]
    operands: tuple[Operand, ...]
    results: tuple[Value, ...]


class Program(NamedTuple):
    """A function as equations in the order in which they are computed."""

    arguments: tuple[Value, ...]
    equations: tuple[Equation, ...]
    results: tuple[Operand, ...]


def shapes(*texts: str, dtype: Any = jnp.float32) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Return arrays of sizes such as "b,i" or "3,n"; equal names mean equal sizes, "" a scalar."""
    scope = export.SymbolicScope()
    return tuple(
        jax.ShapeDtypeStruct(export.symbolic_shape(text, scope=scope) if text else (), dtype)
        for text in texts
    )


def trace(function: Callable[..., Any], arguments: Sequence[jax.ShapeDtypeStruct]) -> Program:
    """Trace `function(*arguments)`; its results may be any tree of arrays."""
    with kernels.use("xla"):
        closed = jax.make_jaxpr(function)(*arguments)
        flat = _Flattened()
        given = tuple(flat.new(variable.aval) for variable in closed.jaxpr.invars)
        results = flat.enter(closed.jaxpr, closed.consts, given)
    return Program(given, _used(flat.equations, results), results)


class _Flattened:
    """The equations of a jaxpr and of all that it calls."""

    def __init__(self):
        self.equations: list[Equation] = []
        self._values = 0

    def new(self, aval: Any) -> Value:
        self._values += 1
        return Value(self._values, tuple(aval.shape), np.dtype(aval.dtype))

    def enter(
        self, jaxpr: Any, consts: Sequence[Any], operands: Sequence[Operand]
    ) -> tuple[Operand, ...]:
        known: dict[Any, Operand] = dict(zip(jaxpr.invars, operands, strict=True))
        known |= zip(jaxpr.constvars, map(np.asarray, consts), strict=True)

        def read(atom: Any) -> Operand:
            return (
                np.asarray(atom.val, getattr(atom.aval, "dtype", None))
                if isinstance(atom, Literal)
                else known[atom]
            )

        for equation in jaxpr.eqns:
            inputs = tuple(map(read, equation.invars))
            called = _called(equation)
            if called:
                outputs = self.enter(*called, inputs)
            else:
                outputs = tuple(self.new(variable.aval) for variable in equation.outvars)
                name = equation.primitive.name
                self.equations.append(Equation(name, equation.params, inputs, outputs))
            known |= zip(equation.outvars, outputs, strict=True)
        return tuple(map(read, jaxpr.outvars))


def _called(equation: Any) -> tuple[Any, Sequence[Any]] | None:
    body = program_of(equation)
    if body is not None:
        return body, ()
    if equation.primitive.name not in _CALLS:
        return None
    body = next(equation.params[key] for key in _BODIES if key in equation.params)
    return getattr(body, "jaxpr", body), getattr(body, "consts", ())


def _used(equations: Sequence[Equation], results: Sequence[Operand]) -> tuple[Equation, ...]:
    wanted = {value.number for value in results if isinstance(value, Value)}
    kept = []
    for equation in reversed(equations):
        if wanted & {value.number for value in equation.results}:
            kept.append(equation)
            wanted |= {value.number for value in equation.operands if isinstance(value, Value)}
    return tuple(reversed(kept))
