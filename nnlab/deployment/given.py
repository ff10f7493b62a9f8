"""What a rule of `nnlab.deployment.rules` is given."""

from collections.abc import Callable
from typing import Any, NamedTuple

from nnlab.deployment.builder import Builder
from nnlab.deployment.program import Step
from nnlab.deployment.values import Value
from nnlab.errors import InputError


class Comparison(NamedTuple):
    """Where a value is above, or else below, one number."""

    value: Value
    above: bool
    number: float


class Given(NamedTuple):
    """What a rule knows.

    Attributes:
        step: with its equation.
        inputs: arrays, values and comparisons.
        shapes: of the inputs.
        result: shape of what the step gives.
        build: takes new nodes.
    """

    step: Step
    inputs: list[Any]
    shapes: list[tuple[int, ...]]
    result: tuple[int, ...]
    build: Builder

    @property
    def params(self) -> dict[str, Any]:
        return self.step.equation.params

    def name(self, word: str) -> str:
        """Return a node's name: that of its module, which mostly has one such node."""
        return self.step.scope or word

    def refuse(self, found: str, expected: str) -> InputError:
        where = self.step.scope or "the model"
        function = f" in {self.step.function}" if self.step.function else ""
        return InputError(f"{where} has {found}{function}, expected {expected}.")


Rule = Callable[[Given], Any]
