"""Check the arguments of a network when it is made, in one place for all of `nnlab.models`."""

import dataclasses
from typing import Annotated, Any, get_args, get_origin

import flax.linen as nn

from nnlab.arithmetics import NAMED, Arithmetic
from nnlab.errors import InputError, check_count

# An integer field that may be 0; any other counts something that a network has.
Count = Annotated[int, "at least 0"]


class Network(nn.Module):
    """A module whose fields are checked on construction, by their annotations.

    Raises:
        InputError: a field that is an `Arithmetic` has another value, or one that is an `int` or a
            tuple of them no integers of at least 1, or a `Count` none of at least 0. A field that
            may be None is an `int | None`.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name, None)
            if field.type is Arithmetic:
                check_arithmetic(field.name, value)
            elif field.type is int or (field.type == int | None and value is not None):
                check_count(field.name, value)
            elif field.type is Count:
                check_count(field.name, value, least=0)
            elif get_origin(field.type) is tuple and {*get_args(field.type)} <= {int, ...}:
                if not isinstance(value, tuple | list):
                    raise InputError(f"{field.name} is {value!r:.60}, expected {field.default!r}.")
                for size in value:
                    check_count(field.name, size)
        super().__post_init__()


def check_arithmetic(name: str, value: Any) -> None:
    """Raise `InputError`, which says what to give instead, unless `value` is an arithmetic.

    Args:
        name: of the argument.
        value: what was given, such as the name "adder" in place of `ADDER`.
    """
    if isinstance(value, Arithmetic):
        return
    expected = "expected a value of nnlab.arithmetics, such as ADDER"
    if isinstance(value, str) and value.lower() in NAMED:
        expected = f"expected the arithmetic itself, nnlab.arithmetics.NAMED[{value.lower()!r}]"
    raise InputError(f"{name} is {value!r:.80}, {expected}.")
