"""Networks and arithmetics of the user's own by their names, "module:Class" and "module:NAME"."""

import ast
import dataclasses
import json
import re
import sys
from collections.abc import Iterable
from typing import Any

import flax.linen as nn

from nnlab.arithmetics import NAMED, Arithmetic
from nnlab.errors import InputError
from nnlab.runs.descriptions import Reader, looked_up


def search_here() -> None:
    """Let modules be imported from the current folder, as a script's own folder lets them."""
    if "" not in sys.path:
        sys.path.insert(0, "")


def own_class(name: str) -> type[nn.Module]:
    """Import the class of a network, which runs its module; the current folder is searched first.

    Args:
        name: "module:Class", as files of own networks say it.

    Raises:
        InputError: there is no such module or class, or it is no Flax Linen module.
    """
    found = _imported(name)
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        raise InputError(f"{name} is {found!r:.80}, expected a class of flax.linen.Module.")
    return found


def arithmetic(name: str) -> Arithmetic:
    """Return an arithmetic of `nnlab.arithmetics.NAMED`, or import one of the user's own.

    Args:
        name: such as "adder", or "module:NAME", whose module is run.

    Raises:
        InputError: there is no such arithmetic.
    """
    if name in NAMED:
        return NAMED[name]
    if ":" not in name:
        shown = name if name.isprintable() else repr(name)
        raise InputError(
            f"there is no arithmetic {shown}, expected one of {', '.join(NAMED)}, or MODULE:NAME of"
            " your own."
        )
    found = _imported(name)
    if not isinstance(found, Arithmetic):
        raise InputError(
            f"{name} is {found!r:.80}, expected an arithmetic, such as nnlab.arithmetics.of_term"
            " makes."
        )
    return found


def _imported(name: str) -> Any:
    search_here()
    try:
        return looked_up(name)
    except Exception as error:  # whatever the module raises
        first = str(error).partition("\n")[0].rstrip(".")
        said = first if isinstance(error, ImportError | AttributeError) else ""
        said = said or f"{type(error).__name__}: {first}"
        raise InputError(f"{name} cannot be imported: {said}.") from error


def own_network(
    name: str, fields: Iterable[str] = (), options: dict[str, Any] | None = None
) -> nn.Module:
    """Build a network of the user's own.

    Args:
        name: "module:Class".
        fields: "name=value" each. A value is that of `arithmetic` where the field is one, JSON as
            files of networks hold it (`nnlab.runs.descriptions`), what Python writes, such as False
            or (4, 8), or else a text.
        options: further fields, as they are.

    Raises:
        InputError: as of `own_class`; the class lacks a field, or needs one that is not given; or
            a value is none.
    """
    kind = own_class(name)
    known = {f.name: f for f in dataclasses.fields(kind) if f.name not in ("parent", "name")}
    given = dict(options or {})
    for item in fields:
        field, equals, text = item.partition("=")
        if not equals:
            raise InputError(f"--fields takes NAME=VALUE, such as width=16, not {item!r:.80}.")
        given[field] = _value(text, known.get(field))
    if unknown := given.keys() - known.keys():
        has = f"expected {', '.join(known)}" if known else "it has none"
        raise InputError(f"{name} has no field {', '.join(sorted(unknown))}; {has}.")
    needed = [
        f.name
        for f in known.values()
        if f.init and f.default is f.default_factory is dataclasses.MISSING
    ]
    if missing := [field for field in needed if field not in given]:
        shown = " ".join(f"{field}=…" for field in missing)
        raise InputError(f"{name} needs its fields, --fields {shown}.")
    try:
        return kind(**given)
    except InputError:
        raise
    except Exception as error:
        first = str(error).partition("\n")[0].rstrip(".")
        raise InputError(f"{name} cannot be made: {type(error).__name__}: {first}.") from error


def _value(text: str, field: Any) -> Any:
    kind, default = getattr(field, "type", None), getattr(field, "default", None)
    takes_arithmetic = kind is Arithmetic or isinstance(default, Arithmetic)
    if takes_arithmetic and re.fullmatch(r"[\w.]+(:\w+)?", text):
        return arithmetic(text)
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError):
            continue
        return Reader(trust=True).value(found) if read is json.loads else found
    if isinstance(default, bool | int | float | tuple):
        raise InputError(f"{field.name} is the text {text!r:.60}, expected such as {default!r}.")
    return text
