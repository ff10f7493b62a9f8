"""JSON records of a version, such as those that are saved with a network."""

import json
from typing import Any

from nnlab.errors import InputError


def read_record(text: str, name: str, version: int) -> dict[str, Any]:
    """The fields of a JSON object but its "version", which must be that one.

    Raises:
        InputError: the text is no such object; `name` says what was expected.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise no_record(text, name, version) from error
    if not isinstance(fields, dict) or fields.pop("version", None) != version:
        raise no_record(text, name, version)
    return fields


def no_record(text: str, name: str, version: int) -> InputError:
    """The error to raise for a text, or fields of it, that are not what they should be."""
    return InputError(f"{text[:60]!r}… is no {name} of version {version}")
