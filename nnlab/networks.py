"""Check the arguments of a network when it is made, in one place for all of `nnlab.models`."""

import dataclasses
from typing import Any

import flax.linen as nn

from nnlab.arithmetics import NAMED, Arithmetic
from nnlab.errors import InputError, check_count

# Fields that are sizes and numbers of layers.
_SIZES = (
    *("classes", "outputs", "symbols", "events", "window", "locations", "size"),
    *("features", "hidden", "code", "width", "widths"),
    *("layers", "depth", "read_heads", "write_heads"),
)


class Network(nn.Module):
    """A module whose fields are checked on construction: arithmetics, sizes and numbers of layers.

    Raises:
        InputError: a field that is annotated as `Arithmetic` is none, or a size or number is no
            integer of at least 1.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name, None)
            if field.type is Arithmetic:
                check_arithmetic(field.name, value)
            elif field.name in _SIZES:
                if isinstance(field.default, tuple) and not isinstance(value, tuple | list):
                    raise InputError(f"{field.name} is {value!r:.60}, expected {field.default!r}.")
                for size in value if isinstance(value, tuple) else (value,):
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
