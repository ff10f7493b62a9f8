"""Fields of a model as JSON, and the same values again.

=====================================================  ============================================
JSON                                                   value
=====================================================  ============================================
number, text, null                                     itself
[…], {"list": […]}                                     tuple, list
{"dict": [[key, value], …]}                            dictionary
{"dtype": "bfloat16"}                                  dtype
{"layer": "LSTMCell"}                                  class of `nnlab.layers`
{"arithmetic": "BINARY"}                               value of `nnlab.arithmetics`
{"arithmetic": "dorefa", "arguments": [2, 3]}          what that function of it gives
{"arithmetic": "ADDER", "with": {field: …, …}}         that value with other fields; those of null
                                                       are all fields
{"object": "module:name"}                              function or class
{"partial": …, "arguments": […], "options": {…}}       `functools.partial` of a function or class
{"made": "module:function", "options": {…}}            the function that this one returns, such as
                                                       a schedule of `optax`
{"instance": "module:Class", "fields": {…}}            dataclass, Flax module or named tuple
=====================================================  ============================================

A file may come from anywhere, and to import a module is to run it. So names are looked up in
nnlab's ops, layers and models, `flax.linen`, `jax.nn` and `optax` alone, and only for what these
define; any other name is an error unless the caller trusts the file.
"""

import dataclasses
import functools
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.core import FrozenDict

from nnlab import arithmetics, layers
from nnlab.arithmetics import NAMED, Arithmetic
from nnlab.errors import InputError

_PLAIN = (bool, int, float, str, type(None))
_LINEN = ("parent", "name")  # every Linen module has these
_PUBLIC = {  # where a function is looked for before its own module, which may be private
    "flax.linen": nn,
    "jax.nn": jax.nn,
    "jax.nn.initializers": jax.nn.initializers,
    "jax.numpy": jnp,
    "optax": optax,
    "nnlab.layers": layers,
}
_ROOMS = "ops|layers|vision|sequences|series|classics"
_KNOWN = re.compile(rf"(nnlab\.({_ROOMS})|flax\.linen|jax\.nn|optax)(\.|$)")
_OWNERS = {"nnlab", "flax", "jax", "optax"}
_MAKERS = {"dorefa": arithmetics.dorefa, "deep_shift_q": arithmetics.deep_shift_q}
_MADE = {"dorefa": "dorefa", "shift_q": "deep_shift_q"}  # by the beginnings of their names


def path_of(value: Any) -> str:
    """Return "module:name" of a class or function; nothing says that it can be found there."""
    return f"{value.__module__}:{value.__qualname__}"


def fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass or Flax module by name, as JSON.

    Raises:
        InputError: a field has no description.
    """
    names = [f.name for f in dataclasses.fields(value) if f.init]
    if isinstance(value, nn.Module):
        names = [name for name in names if name not in _LINEN]
    return {name: described(name, getattr(value, name)) for name in names}


def described(name: str, value: Any) -> Any:
    """Return `value` as JSON.

    Args:
        name: of the field that has it, for errors.
        value: of the table above.

    Raises:
        InputError: it has no description, such as a lambda or an array.
    """
    if isinstance(value, _PLAIN):
        return value
    found = _described(name, value)
    if found is None:
        raise InputError(
            f"a file cannot name {name}={value!r:.120}; expected numbers, texts, dtypes, "
            "arithmetics, or functions and classes that a module holds by their names."
        )
    return found


def _described(name: str, value: Any) -> Any:
    inner = functools.partial(described, name)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        named: Any = value
        fields = {key: inner(part) for key, part in named._asdict().items()}
        return {"instance": _found_at(type(value)), "fields": fields}
    if isinstance(value, tuple):
        return [inner(part) for part in value]
    if isinstance(value, list):
        return {"list": [inner(part) for part in value]}
    if isinstance(value, dict | FrozenDict):
        return {"dict": [[inner(key), inner(part)] for key, part in value.items()]}
    if isinstance(value, Arithmetic):
        return _arithmetic(value)
    if isinstance(value, functools.partial):
        options = {key: inner(part) for key, part in value.keywords.items()}
        arguments = [inner(part) for part in value.args]
        return {"partial": inner(value.func), "arguments": arguments, "options": options}
    if isinstance(value, type) and getattr(layers, value.__name__, None) is value:
        return {"layer": value.__name__}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        place = _found_at(type(value))
        return place and {"instance": place, "fields": fields_of(value)}
    if isinstance(value, jnp.dtype) or _is_scalar_type(value):
        return {"dtype": jnp.dtype(value).name}
    if callable(value) and hasattr(value, "__qualname__"):
        place = _found_at(value)
        return {"object": place} if place else _made(name, value)
    return None


def _is_scalar_type(value: Any) -> bool:
    try:
        return isinstance(value, type) and jnp.dtype(value).kind != "O"
    except (TypeError, ValueError):
        return False


def _found_at(value: Any) -> str | None:
    """Where a function or class is found again."""
    for module, room in _PUBLIC.items():
        if getattr(room, value.__name__, None) is value:
            return f"{module}:{value.__name__}"
    if "<" in value.__qualname__:
        return None
    try:
        return path_of(value) if looked_up(path_of(value)) is value else None
    except (ImportError, AttributeError):
        return None


def looked_up(place: str) -> Any:
    """Import what "module:name" names; any error of the module passes through."""
    module, _, name = place.partition(":")
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))


def _made(name: str, value: Callable) -> dict[str, Any] | None:
    """A function that another one returned, if its variables are arguments of that one."""
    maker, _, inside = value.__qualname__.rpartition(".<locals>.")
    if not maker or "." in inside:
        return None
    try:
        maker = looked_up(f"{value.__module__}:{maker}")
        rebuilt = maker(**_variables(value))
        same = _state(name, rebuilt) == _state(name, value)
    except Exception:  # whatever a stranger's function raises when it is called so
        return None
    place = _found_at(maker)
    options = {key: described(name, part) for key, part in _variables(value).items()}
    return {"made": place, "options": options} if same and place else None


def _variables(function: Callable) -> dict[str, Any]:
    function = inspect.unwrap(function)
    cells = getattr(function, "__closure__", None) or ()
    return dict(
        zip(function.__code__.co_freevars, (cell.cell_contents for cell in cells), strict=True)
    )


def _state(name: str, function: Callable) -> tuple[Any, ...]:
    """What decides what a function computes: code, variables and defaults."""
    variables = {key: described(name, part) for key, part in _variables(function).items()}
    inside: Any = inspect.unwrap(function)
    return inside.__code__, variables, inside.__defaults__, inside.__kwdefaults__


def _arithmetic(value: Arithmetic) -> dict[str, Any]:
    for known, arithmetic in (vars(arithmetics) | NAMED).items():
        if arithmetic is value:
            return {"arithmetic": known}
    made = re.fullmatch(r"(dorefa|shift_q)((?:_\d+)+)", value.name)
    base: dict[str, Any] = {"arithmetic": None}
    fields = fields_of(value)
    if made:
        maker, arguments = _MADE[made[1]], [int(n) for n in made[2][1:].split("_")]
        base = {"arithmetic": maker, "arguments": arguments}
    elif value.name in NAMED:
        known = (key for key, a in vars(arithmetics).items() if a is NAMED[value.name])
        base = {"arithmetic": next(known, value.name)}
    if base["arithmetic"]:
        original = fields_of(_arithmetic_of(base))
        fields = {key: part for key, part in fields.items() if part != original[key]}
    return base | ({"with": fields} if fields else {})


def _arithmetic_of(json: Mapping[str, Any]) -> Arithmetic:
    """A named arithmetic, or what one of the functions makes."""
    name = json["arithmetic"]
    if "arguments" in json and name in _MAKERS:
        try:
            return _MAKERS[name](*json["arguments"])
        except (TypeError, ValueError) as error:
            raise InputError(f"{name}{tuple(json['arguments'])} is no arithmetic: {error}") from (
                error
            )
    value = getattr(arithmetics, str(name), None)
    value = value if isinstance(value, Arithmetic) else NAMED.get(name)
    if value is None:
        raise InputError(f"nnlab.arithmetics has no {name}; expected one that this nnlab knows.")
    return value


class Reader(NamedTuple):
    """Makes values of JSON.

    Attributes:
        trust: whether names outside of the known rooms may be imported.
        given: classes that the caller passed, by what the file calls them.
    """

    trust: bool = False
    given: Mapping[str, Any] = {}

    def value(self, json: Any) -> Any:
        """Return what `described` described.

        Raises:
            InputError: it names what this nnlab does not know, or code that is not trusted.
        """
        match json:
            case list():
                return tuple(map(self.value, json))
            case {"list": parts}:
                return list(map(self.value, parts))
            case {"dict": pairs}:
                return {self.value(key): self.value(part) for key, part in pairs}
            case {"dtype": name}:
                return jnp.dtype(name)
            case {"layer": name}:
                value = getattr(layers, name, None)
                if not isinstance(value, type):
                    raise InputError(f"nnlab.layers has no {name}; expected one that it has.")
                return value
            case {"arithmetic": None, "with": fields}:
                return self._called("Arithmetic", Arithmetic, (), fields)
            case {"arithmetic": _, "with": fields}:
                replace = functools.partial(dataclasses.replace, _arithmetic_of(json))
                return self._called("Arithmetic", replace, (), fields)
            case {"arithmetic": _}:
                return _arithmetic_of(json)
            case {"object": place}:
                return self.object(place)
            case {"partial": function, "arguments": arguments, "options": options}:
                function = functools.partial(functools.partial, self.value(function))
                return self._called("a partial", function, arguments, options)
            case {"made": place, "options": options}:
                return self._called(place, self.object(place), (), options)
            case {"instance": place, "fields": fields}:
                return self._called(place, self.object(place), (), fields)
            case dict():
                raise InputError(f"the file names a {' and '.join(json)}, which no field can be.")
        return json

    def fields(self, json: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.value(part) for name, part in json.items()}

    def object(self, place: str) -> Any:
        """Return a function or class by "module:name".

        Raises:
            InputError: there is none, or it is not trusted.
        """
        if place in self.given:
            return self.given[place]
        module, _, name = place.partition(":")
        house = bool(_KNOWN.match(module)) and "." not in name
        if not (house or self.trust):
            raise InputError(
                f"the file names {place}, and to import that is to run it; expected trust=True "
                "(--trust on a command line) if you know where the file is from, or model= with "
                "your own."
            )
        try:
            value = looked_up(place)
        except Exception as error:  # whatever a stranger's module raises
            said = str(error).rstrip(".") or type(error).__name__
            raise InputError(
                f"the file names {place}, which cannot be found: {said}; expected its module in the"
                " current folder or on PYTHONPATH."
            ) from error
        owner = str(getattr(value, "__module__", "")).partition(".")[0]
        if not callable(value) or not (self.trust or owner in _OWNERS):
            raise InputError(f"the file names {place}, expected a function or class of {module}.")
        return value

    def _called(self, name: str, function: Callable, arguments: Any, options: Any) -> Any:
        arguments = [self.value(part) for part in arguments]
        options = self.fields(options)
        try:
            return function(*arguments, **options)
        except (TypeError, ValueError) as error:
            raise InputError(f"{name} does not take what the file has for it: {error}.") from error
