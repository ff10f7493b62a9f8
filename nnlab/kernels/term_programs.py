"""The steps of an elementwise function of two numbers, from its jaxpr.

A function such as `lambda x, w: -jnp.abs(x - w)` is traced with two scalars, and the functions that
it calls are written out in place. What is left, without steps that nothing needs and without
products with 1, which derivatives are full of, is what one term costs (`nnlab.costs`) and what a
library of it is made of (`nnlab.kernels.term_source`).
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

Function = Callable[[jax.Array, jax.Array], Any]
Place = int | np.ndarray  # of an operand: number of an input or a step, or a constant

_CALLS = {"jit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "checkpoint"}


class Step(NamedTuple):
    """One primitive; its result is `Program.steps[i]`'s place `2 + i`."""

    primitive: Any
    params: dict[str, Any]
    operands: tuple[Place, ...]
    result: ShapedArray


class Program(NamedTuple):
    """Steps from x (place 0) and w (place 1) to the place of the result."""

    steps: tuple[Step, ...]
    result: Place

    def __call__(self, x: jax.Array, w: jax.Array) -> Any:
        """Run the steps on two scalars."""
        values: list[Any] = [x, w]

        def at(place: Place) -> Any:
            return values[place] if isinstance(place, int) else jnp.asarray(place)

        for step in self.steps:
            values.append(step.primitive.bind(*map(at, step.operands), **step.params))
        return at(self.result)

    @property
    def digest(self) -> str:
        """A name for what the program computes, the same in every process."""
        text = hashlib.sha256()
        for step in (*self.steps, self.result):
            operands = step.operands if isinstance(step, Step) else (step,)
            for place in operands:
                text.update(f"{place},".encode() if isinstance(place, int) else _bytes(place))
            if isinstance(step, Step):
                text.update(f"{step.primitive} {sorted(step.params.items())};".encode())
        return text.hexdigest()[:16]


def program_of(function: Function) -> Program:
    """Trace a function of two float32 scalars.

    Raises:
        NotImplementedError: a step has several results, as loops have.
    """
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    traced = jax.make_jaxpr(function)(scalar, scalar)
    steps: list[Step] = []
    (result,) = _write_out(traced.jaxpr, traced.consts, (0, 1), steps)
    return needed(steps, result)


def _write_out(
    jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[Place], steps: list[Step]
) -> list[Place]:
    """Append the steps of a jaxpr; gives the places of its results."""
    places: dict[Any, Place] = dict(zip(jaxpr.invars, inputs, strict=True))
    places |= {v: np.asarray(c) for v, c in zip(jaxpr.constvars, consts, strict=True)}

    def at(variable: Any) -> Place:
        if isinstance(variable, Literal):
            value: Any = variable
            return np.asarray(value.val, value.aval.dtype)
        return places[variable]

    for equation in jaxpr.eqns:
        operands = tuple(map(at, equation.invars))
        inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        if equation.primitive.name in _CALLS and inner is not None:
            body = (inner.jaxpr, inner.consts) if isinstance(inner, ClosedJaxpr) else (inner, ())
            places.update(zip(equation.outvars, _write_out(*body, operands, steps), strict=True))
        elif equation.primitive.multiple_results:
            raise NotImplementedError(str(equation.primitive))
        else:
            places[equation.outvars[0]] = _place(equation, operands, steps)
    return [at(variable) for variable in jaxpr.outvars]


def _place(equation: Any, operands: tuple[Place, ...], steps: list[Step]) -> Place:
    """Where the result of an equation is: a constant, an operand, or a new step."""
    name, first = equation.primitive.name, operands[0] if operands else 0
    if name == "mul":
        for one, other in (operands, operands[::-1]):
            if not isinstance(one, int) and one.ndim == 0 and one == 1:
                return other
    result: Any = equation.outvars[0].aval
    if not isinstance(first, int) and name in ("neg", "convert_element_type"):
        return np.asarray(-first if name == "neg" else first, result.dtype)
    if name == "div" and (choice := _powers_of_two(operands[1], steps)):
        # The derivative of a maximum has 1 or 2 there. A quotient takes as long as ten products.
        steps.append(choice)
        operands = (first, len(steps) + 1)
        steps.append(Step(lax.mul_p, {}, operands, result))
    else:
        steps.append(Step(equation.primitive, equation.params, operands, result))
    return len(steps) + 1


def _powers_of_two(place: Place, steps: list[Step]) -> Step | None:
    """The choice among reciprocals where a place holds one among powers of two."""
    step = steps[place - 2] if isinstance(place, int) and place > 1 else None
    if step is None or step.primitive.name != "select_n":
        return None
    which, *cases = step.operands
    constants = [case for case in cases if not isinstance(case, int)]
    if len(constants) < len(cases) or any(abs(np.frexp(c)[0]) != 0.5 for c in constants):
        return None
    return step._replace(operands=(which, *(np.asarray(1 / c, c.dtype) for c in constants)))


def needed(steps: Sequence[Step], result: Place) -> Program:
    """Return the steps that the number at a place depends on, as a program with that result."""
    used = {result} if isinstance(result, int) else set()
    for number in reversed(range(len(steps))):
        if number + 2 in used:
            used |= {place for place in steps[number].operands if isinstance(place, int)}
    kept = [number for number in range(len(steps)) if number + 2 in used]
    moved = {0: 0, 1: 1} | {number + 2: place + 2 for place, number in enumerate(kept)}

    def at(place: Place) -> Place:
        return moved[place] if isinstance(place, int) else place

    short = (steps[number] for number in kept)
    return Program(
        tuple(step._replace(operands=tuple(map(at, step.operands))) for step in short), at(result)
    )


def _bytes(constant: np.ndarray) -> bytes:
    return f"{constant.dtype}{constant.shape}".encode() + constant.tobytes()
