"""The expression of one element of an array, in terms of elements of the arrays that are made.

Shapes move indices: an element of `x.T` at (a, b) is one of `x` at (b, a). A `Block` writes what is
computed on the way as constants of a loop's body, each once.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnlab.errors import InputError
from nnlab.playground.primitives import (
    BITCASTS,
    COMPARISONS,
    CONVERSIONS,
    ELEMENTWISE,
    Kind,
    kind_of,
)
from nnlab.playground.program import Equation, Operand, Value

Index = list[str]
RESHAPES = frozenset(["expand_dims", "reshape", "squeeze"])
MOVES = RESHAPES | {"broadcast_in_dim", "rev", "slice", "transpose"}
JOINS = frozenset(["concatenate", "stack"])
SOURCES = frozenset(["dim_as_value", "iota"])
ONE_TO_ONE = frozenset(["convert_element_type", "bitcast_convert_type", "integer_pow"])


class Scope:
    """What a function has named so far.

    Attributes:
        makers: the equation of each value, by its number.
        arrays: the JavaScript name of everything that has an array of its own, by its number.
        constants: lines at the top of the function.
        elements: how many elements have a name.
    """

    def __init__(self, makers: Mapping[int, Equation], arrays: dict[int, str]):
        self.makers = makers
        self.arrays = arrays
        self.constants: list[str] = []
        self.elements = 0

    def constant(self, array: np.ndarray) -> str:
        """Return the name of an array of numbers that stands at the top of the function."""
        numbers = ", ".join(map(number_text, array.ravel()))
        name = f"c{len(self.constants)}"
        self.constants.append(f"const {name} = {kind_of(array.dtype).array}.of({numbers});")
        return name


class Block:
    """The lines of a loop's body that compute elements of values without an array."""

    def __init__(self, scope: Scope):
        self.scope = scope
        self.lines: list[str] = []
        self._known: dict[tuple[int, str], str] = {}

    def element(self, operand: Operand, index: Index, inside: bool = False) -> str:
        """Return the expression of one element; `inside` the loop that makes its array."""
        if not isinstance(operand, Value):
            if operand.size == 1:
                return number_text(operand.ravel()[0])
            return f"{self.scope.constant(operand)}[{offset(operand.shape, index)}]"
        array = self.scope.arrays.get(operand.number)
        if array and not inside:
            return f"{array}[{offset(operand.shape, index)}]" if operand.shape else array
        key = operand.number, ",".join(index)
        if key not in self._known:
            self._known[key] = self._computed(operand, index)
        return self._known[key]

    def _computed(self, value: Value, index: Index) -> str:
        equation = self.scope.makers[value.number]
        primitive = equation.primitive
        if primitive in MOVES:
            return self._moved(equation, index)
        if primitive == "iota":
            return index[equation.params["dimension"]]
        if primitive == "dim_as_value":
            return size_text(equation.params["dim"])
        if primitive in JOINS:
            return self._joined(equation, index)
        operands = []
        for operand in equation.operands:
            own = index
            if len(operand.shape) == 0:
                own = []
            elif tuple(operand.shape) != tuple(value.shape):  # sizes of 1 meet all others
                own = [
                    "0" if size == 1 else i for size, i in zip(operand.shape, index, strict=True)
                ]
            operands.append(self.element(operand, own))
        text = _template(equation)
        for place, operand in enumerate(operands):
            text = text.replace(f"${place}", operand)
        if re.fullmatch(r"[\w.\[\]]+", text):
            return text
        name = f"e{self.scope.elements}"
        self.scope.elements += 1
        self.lines.append(f"const {name} = {text};")
        return name

    def _joined(self, equation: Equation, index: Index) -> str:
        params = equation.params
        axis: int = params["axis" if equation.primitive == "stack" else "dimension"]
        before, text = "0", ""
        for number, operand in enumerate(equation.operands[:-1], 1):
            if equation.primitive == "stack":
                own, after = [*index[:axis], *index[axis + 1 :]], str(number)
            else:
                own = [*index[:axis], f"({index[axis]} - ({before}))", *index[axis + 1 :]]
                after = f"{before} + {size_text(operand.shape[axis])}"
            text += f"{index[axis]} < {after} ? {self.element(operand, own)} : "
            before = after
        own = [*index[:axis], *index[axis + 1 :]]
        if equation.primitive == "concatenate":
            own.insert(axis, f"({index[axis]} - ({before}))")
        return f"({text}{self.element(equation.operands[-1], own)})"

    def _moved(self, equation: Equation, index: Index) -> str:
        [operand], params = equation.operands[:1], equation.params
        shape, primitive = operand.shape, equation.primitive
        [value] = equation.results
        if primitive == "broadcast_in_dim":
            places = params["broadcast_dimensions"]
            moved = ["0" if s == 1 else index[d] for s, d in zip(shape, places, strict=True)]
        elif primitive == "transpose":
            moved = [""] * len(shape)
            for place, axis in enumerate(params["permutation"]):
                moved[axis] = index[place]
        elif primitive == "rev":
            moved = [
                f"({size_text(size)} - 1 - {i})" if axis in params["dimensions"] else i
                for axis, (size, i) in enumerate(zip(shape, index, strict=True))
            ]
        elif primitive == "slice":
            strides = params["strides"] or [1] * len(shape)
            moved = [
                _step(start, stride, i)
                for start, stride, i in zip(params["start_indices"], strides, index, strict=True)
            ]
        else:  # reshape, squeeze and expand_dims
            moved = _reshaped(shape, value.shape, index)
        return self.element(operand, moved)


def _step(start: Any, stride: Any, i: str) -> str:
    if i == "0":
        return size_text(start)
    moved = i if stride == 1 else f"{size_text(stride)} * {i}"
    return moved if start == 0 else f"({size_text(start)} + {moved})"


def _reshaped(old: Sequence[Any], new: Sequence[Any], index: Index) -> Index:
    """Indices into an array of the `old` shape for those into one of the `new`."""
    longer = [(size, i) for size, i in zip(new, index, strict=True) if size != 1]
    if [size for size in old if size != 1] == [size for size, _ in longer]:
        rest = iter(i for _, i in longer)
        return ["0" if size == 1 else next(rest) for size in old]
    place_in_all, moved = f"({offset(new, index)})", []
    for axis, size in enumerate(old):
        after = " * ".join(size_text(s) for s in old[axis + 1 :] if s != 1)
        place = f"Math.floor({place_in_all} / ({after}))" if after else place_in_all
        moved.append("0" if size == 1 else place if not axis else f"{place} % {size_text(size)}")
    return moved


def _template(equation: Equation) -> str:
    """The expression of an elementwise equation, with `$0` and so on for the operands."""
    primitive = equation.primitive
    result = kind_of(equation.results[0].dtype)
    given = kind_of(equation.operands[0].dtype)
    if primitive in COMPARISONS:
        return f"({COMPARISONS[primitive]})"
    if primitive == "integer_pow":
        y = equation.params["y"]
        if y == 1:
            return "$0"
        return pick({"f": f"f($0 ** {y})" if y != 2 else "f($0 * $0)"}, result, equation)
    if primitive == "convert_element_type":
        return CONVERSIONS[given.name + result.name]
    if primitive == "bitcast_convert_type":
        return BITCASTS[given.name + result.name]
    return pick(ELEMENTWISE[primitive], result, equation)


def pick(table: Mapping[str, str], kind: Kind, equation: Equation) -> str:
    if kind.name not in table:
        raise InputError(
            f"The primitive {equation.primitive!r} of {equation.results[0].dtype.name} cannot be"
            f" printed; expected one of the kinds {', '.join(table)}."
        )
    return table[kind.name]


def offset(shape: Sequence[Any], index: Index) -> str:
    """The place of an element in row-major order."""
    place = ""
    for size, i in zip(shape, index, strict=True):
        if size == 1:
            continue
        place = (
            f"({place}) * {size_text(size)} + {i}"
            if " " in place
            else (f"{place} * {size_text(size)} + {i}" if place else i)
        )
    return place or "0"


def size_text(size: Any) -> str:
    text = str(size)
    if not re.fullmatch(r"[\w*+\- ]+", text):
        raise InputError(f"The size {text} cannot be printed; expected sums and products of names.")
    return text if text.isalnum() else f"({text})"


def number_text(number: Any) -> str:
    if isinstance(number, bool | np.bool_):
        return str(int(number))
    if isinstance(number, np.integer | int):
        return str(int(number)) if number >= 0 else f"({int(number)})"
    text = repr(float(number)).replace("inf", "Infinity").replace("nan", "NaN")
    text = text.removesuffix(".0")
    return f"({text})" if text.startswith("-") else text
