"""The steps of an elementwise function of two numbers, from its jaxpr.

A function such as `lambda x, w: -jnp.abs(x - w)` is traced with two scalars, and the functions that
it calls are written out in place. What is left, without steps that nothing needs and without
products with 1 and the like, which derivatives are full of, is what one term costs (`nnlab.costs`)
and what a library of it is made of (`nnlab.kernels.term_source`).
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


class NotNativeError(Exception):
    """A term has no native form; the message is the reason, in a few words."""


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
        NotNativeError: a step has several results, as loops have.
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
            raise NotNativeError(f"{equation.primitive} has no native form")
        else:
            places[equation.outvars[0]] = _place(equation, operands, steps)
    return [at(variable) for variable in jaxpr.outvars]


def _place(equation: Any, operands: tuple[Place, ...], steps: list[Step]) -> Place:
    """Where the result of an equation is: a constant, an operand, or a new step."""
    name, result = equation.primitive.name, equation.outvars[0].aval
    first, *others = operands if operands else (0,)
    if name == "mul" and (_is_number(first, 1) or _is_number(others[0], 1)):
        return others[0] if _is_number(first, 1) else first
    if isinstance(first, np.ndarray) and name in ("neg", "convert_element_type"):
        return np.asarray(-first if name == "neg" else first, result.dtype)
    added = _simpler(name, operands, steps, result)
    steps += added or [Step(equation.primitive, equation.params, operands, result)]
    return len(steps) + 1


def _simpler(name: str, operands: Sequence[Place], steps: list[Step], result: Any) -> list[Step]:
    """Fewer or quicker steps with the same result, or none: the derivatives of extrema need it.

    There JAX asks whether a maximum is one operand, takes 1 or 0, and divides by 2 in case it is
    the other one as well.
    """
    for first, second in (operands, operands[::-1]) if len(operands) == 2 else ():
        of_second = _step(second, steps)
        if of_second is None:
            continue
        extremum, cases = of_second.primitive.name, of_second.operands
        if name == "eq" and extremum in ("max", "min"):  # also where one is NaN
            relation = lax.ge_p if extremum == "max" else lax.le_p
            for one, other in (cases, cases[::-1]):
                if _is_same(first, one):
                    return [Step(relation, {}, (first, other), result)]
        if extremum != "select_n":
            continue
        if name == "mul" and _is_finite(first, steps):
            zero, one = (any(_is_number(c, n) for c in cases[1:]) for n in (0, 1))
            if zero and one:
                chosen = (first if _is_number(c, 1) else c for c in cases[1:])
                return [of_second._replace(operands=(cases[0], *chosen))]
        powers = [c for c in cases[1:] if not isinstance(c, int) and abs(np.frexp(c)[0]) == 0.5]
        if name == "div" and second is operands[1] and len(powers) == 2:
            inverse = of_second._replace(operands=(cases[0], *(np.divide(1, c) for c in powers)))
            factors = (first, len(steps) + 2)
            product = _simpler("mul", factors, [*steps, inverse], result)
            return [inverse, *(product or [Step(lax.mul_p, {}, factors, result)])]
    return []


def _step(place: Place, steps: Sequence[Step]) -> Step | None:
    return steps[place - 2] if isinstance(place, int) and place > 1 else None


def _is_number(place: Place, number: float) -> bool:
    return isinstance(place, np.ndarray) and place.ndim == 0 and bool(place == number)


def _is_same(one: Place, other: Place) -> bool:
    if isinstance(one, int) or isinstance(other, int):
        return isinstance(one, int) and isinstance(other, int) and one == other
    return one.ndim == 0 and _is_number(other, one.item())


def _is_finite(place: Place, steps: Sequence[Step]) -> bool:
    """Whether a place is known to hold finite numbers: constants and choices among them."""
    if not isinstance(place, int):
        return bool(np.isfinite(place).all())
    step = _step(place, steps)
    return step is not None and (
        step.primitive.name == "select_n"
        and all(_is_finite(case, steps) for case in step.operands[1:])
    )


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
