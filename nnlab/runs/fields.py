"""Types for the fields of a configuration that say which values are allowed.

    @dataclasses.dataclass(frozen=True)
    class Config(Run):
        epochs: PositiveInt = 10
        learning_rate: Positive = 0.1
        seeds: Some[Seed] = (0, 1)
        arithmetics: Annotated[tuple[str, ...], SomeOf(NAMED)] = ("float", "adder")

To a type checker they are `int`, `float` and `tuple`; `check_fields`, which `Run` calls for itself,
compares the values with them. That is needed because a command line accepts `--learning-rate nan`.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Collection
from typing import Annotated, Any, TypeVar

from typing_extensions import Doc

from nnlab.errors import InputError

Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class Check:
    """A condition on a value, as metadata of an annotated type.

    Attributes:
        expected: completes "--name must be …".
        holds: whether a value is allowed.
        shown: what an error says was given.
    """

    expected: str
    holds: Callable[[Any], bool]
    shown: Callable[[Any], object] = str

    def __call__(self, name: str, value: Any) -> None:
        """Raise `InputError`, in one sentence, unless the field `name` may hold the value."""
        if not self.holds(value):
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag} must be {self.expected}, not {self.shown(value)}.")


def _integer(low: int, high: int) -> Check:
    def holds(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return Check(f"an integer from {low} to {high}", holds)


# NaN fails every comparison.
Positive = Annotated[float, Check("a positive finite number", lambda x: 0 < x < math.inf)]
Fraction = Annotated[float, Check("a number from 0 to 1", lambda x: 0 <= x <= 1)]
Share = Annotated[float, Check("a number between 0 and 1", lambda x: 0 < x < 1)]
PositiveInt = Annotated[int, _integer(1, 2**31 - 1)]
Count = Annotated[int, _integer(0, 2**31 - 1)]
Seed = Annotated[int, _integer(0, 2**32 - 1), Doc("Seed of everything that is drawn at random.")]
Some = Annotated[tuple[Value, ...], Check("one value or more", bool, lambda _: "none")]
DataDir = Annotated[
    str | None, Doc("Folder with the data set's files; by default they are found or downloaded.")
]


def OneOf(choices: Collection[str]) -> Check:
    """Return the check that a string is one of the choices."""
    return Check(f"one of {', '.join(choices)}", lambda value: value in choices, _printable)


def SomeOf(choices: Collection[str]) -> Check:
    """Return the check that a tuple holds one or more of the choices, each at most once."""

    def wrong(values: Collection[str]) -> list[str]:
        return [value for value in values if value not in choices]

    def holds(values: Collection[str]) -> bool:
        return bool(values) and not wrong(values) and len(set(values)) == len(values)

    def shown(values: Collection[str]) -> str:
        return ", ".join(map(_printable, wrong(values) or values)) or "nothing"

    return Check(f"some of {', '.join(choices)}", holds, shown)


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)


def check_fields(config: Any) -> None:
    """Check every field of a dataclass by its type.

    The items of a tuple are checked one by one, and None passes where the type allows it.

    Raises:
        InputError: one sentence that names the flag, what it expects and what was given.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        _check(field.name, hints[field.name], getattr(config, field.name))


def _check(name: str, hint: Any, value: Any) -> None:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        _check(name, arguments[0], value)
        for check in arguments[1:]:
            if isinstance(check, Check):
                check(name, value)
    elif origin is tuple:
        for item in value:
            _check(name, arguments[0], item)
    elif origin in (typing.Union, types.UnionType) and value is not None:
        for choice in arguments:
            _check(name, choice, value)
