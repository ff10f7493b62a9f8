"""Frozen dataclasses that are kept as JSON, such as in the notes of a network's file.

The JSON object holds the fields of the class and its `TAG`. Reading checks each value against the
annotation of its field: int, float (a whole number will do), str, None, a tuple, another record, or
a union of these. Anything more is up to `__post_init__`.
"""

import dataclasses
import json
import types
import typing
from typing import Any, ClassVar, Self, cast

from nnlab.errors import InputError


class Record:
    """A mixin that gives a frozen dataclass `to_json` and `from_json`."""

    TAG: ClassVar[dict[str, Any]] = {"version": 1}

    def to_json(self) -> str:
        """Write all of it as JSON; floats have the digits that give them back exactly."""
        return json.dumps(self, default=_object, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            InputError: the text is something else, or of another version.
        """
        try:
            return _read(cls, json.loads(text))
        except InputError:
            raise
        except (ValueError, OverflowError, RecursionError) as error:
            raise InputError(
                f"{text[:60]!r}… is no {cls.__name__}, expected what its to_json writes: {error}"
            ) from error


def _object(record: Any) -> dict[str, Any]:
    return record.TAG | {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}


def _read(kind: Any, value: Any) -> Any:
    """The value as `kind` has it; `ValueError` if it is of no such kind."""
    for each in typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,):
        parts = typing.get_args(each)
        if isinstance(each, type) and issubclass(each, Record):
            hints = typing.get_type_hints(each)
            names = [field.name for field in dataclasses.fields(cast(Any, each))]
            keys = {*each.TAG, *names}
            if isinstance(value, dict) and value.keys() == keys and value == value | each.TAG:
                return each(**{name: _read(hints[name], value[name]) for name in names})
        elif parts and isinstance(value, list):
            parts = parts[:1] * len(value) if parts[-1] is ... else parts
            if len(parts) == len(value):
                return tuple(map(_read, parts, value))
        elif each is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        elif type(value) is each:
            return value
    raise ValueError(f"cannot read {repr(value)[:40]}")
