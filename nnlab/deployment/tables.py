"""Functions of single numbers as tables of their values.

A chain of operations on one value (`x * sigmoid(x)` is two) is a function of a number. Where a step
of it has no rule of its own, the whole chain from that value on becomes one table, computed by the
steps themselves: so it is exact but for the rounding of its input and output.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from nnlab.deployment.program import Program, evaluated
from nnlab.deployment.rules import RULES
from nnlab.errors import InputError

_PLAIN = (
    *("add", "add_any", "sub", "mul", "div", "neg", "max", "min", "select_n", "gt", "ge", "lt"),
    *("le", "convert_element_type", "copy", "stop_gradient", "name"),
)
_CURVED = (
    *("abs", "and", "cbrt", "ceil", "clamp", "cos", "eq", "erf", "erfc", "exp", "exp2", "expm1"),
    *("floor", "integer_pow", "is_finite", "log", "log1p", "logistic", "ne", "not", "or", "pow"),
    *("round", "rsqrt", "sign", "sin", "sqrt", "square", "tan", "tanh"),
)


class Chains:
    """The chains of a program.

    Attributes:
        roots: the value that another is a function of, by numbers.
        curved: those roots of which a step has no rule, whatever its inputs are.
    """

    def __init__(self, program: Program):
        self.program = program
        self.roots: dict[int, int] = {}
        self.curved: set[int] = set()
        self.made = {step.outputs[0]: step for step in program.outline}
        for step in program.outline:
            if step.op not in _PLAIN + _CURVED:
                continue
            varying = [number for number in step.inputs if number in program.varying]
            found = {self.roots.get(number, number) for number in varying}
            shapes = {program.shapes[number] for number in (*found, *step.outputs)}
            if len(found) == 1 and len(shapes) == 1:
                (root,) = found
                self.roots[step.outputs[0]] = root
                if step.op not in RULES or (step.op in ("mul", "div") and len(varying) == 2):
                    self.curved.add(root)

    def last_uses(self) -> dict[int, int]:
        """Where each value that a chain needs is needed for the last time, by its place."""
        ends: dict[int, int] = {}
        for place, step in enumerate(self.program.outline):
            if root := self.roots.get(step.outputs[0]):
                ends[root] = place
        return {
            number: ends[root]
            for step in self.program.outline
            if (root := self.roots.get(step.outputs[0]))
            for number in (root, *step.inputs)
        }

    def function(self, number: int, known: Mapping[int, Any]) -> Callable[[np.ndarray], np.ndarray]:
        """Return the function of its root that a value is, of float64 numbers [n].

        Args:
            number: of the value.
            known: constants by number.

        Raises:
            InputError: a constant differs from position to position.
        """
        root, steps, waiting = self.roots[number], {}, [number]
        while waiting:
            here = waiting.pop()
            if here != root and self.roots.get(here) == root and here not in steps:
                steps[here] = self.made[here]
                waiting.extend(self.made[here].inputs)
        ordered = [step for step in self.program.outline if step.outputs[0] in steps]
        constants = {}
        for other in {n for step in ordered for n in step.inputs} - {root, *steps}:
            constants[other] = known[other]
            if np.size(known[other]) == 0 or np.ptp(np.asarray(known[other], np.float64)) != 0:
                raise InputError("a function differs from position to position, expected one.")
        shape = self.program.shapes[root]

        def function(x: np.ndarray) -> np.ndarray:
            size, parts = math.prod(shape), []
            for start in range(0, len(x), size):
                part = x[start : start + size]
                full = np.resize(part, shape)
                values = {**constants, root: jnp.asarray(full, jnp.float32)}
                for step in ordered:
                    values.update(evaluated(step, [values[n] for n in step.inputs]))
                parts.append(np.asarray(values[number], np.float64).ravel()[: len(part)])
            return np.concatenate(parts)

        return function
