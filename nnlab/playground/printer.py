"""A small compiler from traced JAX functions to readable JavaScript.

    print_function("affine", lambda x, w: x @ w + 1, {"x": "b,i", "w": "i,o"})

gives

    function affine(b, i, o, x, w) { … return [v2]; }

whose arguments are the names of sizes, in the order in which they occur, and flat typed arrays in
row-major order, or numbers in place of scalars; it returns the list of results, of the same types.

Each result becomes a loop over its elements. What only one loop reads, once an element, is computed
inside that loop, so that `-abs(x[:, :, None] - w).sum(1)` is one nest of three loops and no array
of three axes exists. Arrays are made for what several loops read, what a matrix product reads, and
what a broadcast would compute again. Shapes move indices and cost nothing.

Sums run in double precision and are rounded to float32 at the end; other operations are rounded one
by one (`nnlab.playground.primitives`).
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nnlab.errors import InputError
from nnlab.playground.primitives import (
    BITCASTS,
    COMPARISONS,
    CONVERSIONS,
    ELEMENTWISE,
    REDUCTIONS,
    Kind,
    kind_of,
)
from nnlab.playground.program import Equation, Operand, Program, Value, shapes, trace

Index = list[str]
_LINE = 88  # characters up to which an expression grows
_RESHAPES = frozenset(["expand_dims", "reshape", "squeeze"])
_MOVES = _RESHAPES | {"broadcast_in_dim", "rev", "slice", "transpose"}
_JOINS = frozenset(["concatenate", "stack"])
_SUMS = frozenset([*REDUCTIONS, "dot_general"])
_SOURCES = frozenset(["dim_as_value", "iota"])
_ONE_TO_ONE = frozenset(["convert_element_type", "bitcast_convert_type", "integer_pow"])


def print_function(name: str, function: Callable[..., Any], arguments: Mapping[str, str]) -> str:
    """Print a traceable function of arrays as a JavaScript function.

    Args:
        name: of the function in JavaScript.
        function: called with arrays by position; its results are any tree of arrays.
        arguments: the names of the arrays and their sizes, as in {"x": "b,i", "bias": "o"}; a dtype
            other than float32 follows a colon, as in "n:int32".

    Raises:
        InputError: the program has a primitive, a dtype or a size that cannot be printed.
    """
    texts = [text.partition(":") for text in arguments.values()]
    given = shapes(*(text for text, _, _ in texts))
    given = [
        type(shape)(shape.shape, dtype or shape.dtype)
        for shape, (_, _, dtype) in zip(given, texts, strict=True)
    ]
    sizes = list(dict.fromkeys(re.findall("[a-z]+", ",".join(text for text, _, _ in texts))))
    return print_program(name, trace(function, given), list(arguments), sizes)


def print_program(
    name: str, program: Program, arguments: Sequence[str], sizes: Sequence[str] = ()
) -> str:
    """Print a program; `arguments` are the names of its arrays, `sizes` those in its shapes."""
    printer = _Printer(name, program, arguments)
    body = "\n".join(f"  {line}" for line in printer.lines())
    results = ", ".join(printer.results)
    head = f"function {name}({', '.join([*sizes, *arguments])}) {{"
    return f"{head}\n{body}\n  return [{results}];\n}}\n"


class _Printer:
    def __init__(self, name: str, program: Program, arguments: Sequence[str]):
        self.name = name
        self.program = program
        self.maker: dict[int, Equation] = {}
        for equation in program.equations:
            _check(name, equation)
            self.maker |= {value.number: equation for value in equation.results}
        # The JavaScript name of everything that has an array of its own.
        self.arrays = {v.number: n for v, n in zip(program.arguments, arguments, strict=True)}
        self.constants: list[str] = []
        self.named = 0  # elements that have a name
        self.stored = self._stored()
        self.results: list[str] = []

    def lines(self) -> list[str]:
        found: list[str] = []
        for equation in self.program.equations:
            for value in equation.results:
                if value.number not in self.stored:
                    continue
                same = self._same_numbers(equation)
                if not same:
                    found += _shortened(self._loop(value, equation))
                self.arrays[value.number] = same or f"v{value.number}"
        given = {value.number for value in self.program.arguments}
        for result in self.program.results:
            if isinstance(result, Value) and result.number in given and result.shape:
                self.results.append(f"{self.arrays[result.number]}.slice()")
            elif isinstance(result, Value):
                self.results.append(self.arrays[result.number])
            elif not result.shape:
                self.results.append(_number(result))
            else:
                kind = kind_of(result.dtype)
                self.results.append(f"{kind.array}.of({', '.join(map(_number, result.ravel()))})")
        return [*self.constants, *found]

    def _same_numbers(self, equation: Equation) -> str | None:
        """The array that holds the numbers of a result in their order already, if one does."""
        operand = equation.operands[0] if equation.primitive in _RESHAPES else None
        given = {value.number for value in self.program.arguments}
        if isinstance(operand, Value) and operand.number not in given:
            return self.arrays.get(operand.number)
        return None

    def _stored(self) -> set[int]:
        """The values that get an array: see the module's docstring."""
        stored = {value.number for value in self.program.results if isinstance(value, Value)}
        stored -= set(self.arrays)
        loops: dict[int, set[int]] = {}  # in which each value is read
        for equation in reversed(self.program.equations):
            [value] = equation.results
            number = value.number
            at = loops.get(number, set())
            costly = equation.primitive not in _MOVES | _SOURCES
            if equation.primitive in _SUMS or (costly and (len(at) > 1 or not value.shape)):
                stored.add(number)
            if number in stored:
                at = {number}
            for place, operand in enumerate(equation.operands):
                if not isinstance(operand, Value) or operand.number not in self.maker:
                    continue
                if _repeats(equation, place) and self._computed(operand):
                    stored.add(operand.number)
                loops.setdefault(operand.number, set()).update(at)
        return stored

    def _computed(self, value: Value) -> bool:
        """Whether an element takes more than reading a number."""
        equation = self.maker.get(value.number)
        if equation is None or equation.primitive in _SOURCES | _SUMS:
            return False
        if equation.primitive in _MOVES:
            [operand] = equation.operands[:1]
            return isinstance(operand, Value) and self._computed(operand)
        return True

    def _loop(self, value: Value, equation: Equation) -> list[str]:
        """Lines that make the array of a value."""
        kind, name = kind_of(value.dtype), f"v{value.number}"
        index = [f"a{axis}" if size != 1 else "0" for axis, size in enumerate(value.shape)]
        block = _Block(self)
        inner: list[str] = []
        if equation.primitive in REDUCTIONS:
            [operand] = equation.operands
            axes, within = equation.params["axes"], iter(index)
            full = [
                (f"r{axis}" if size != 1 else "0") if axis in axes else next(within)
                for axis, size in enumerate(operand.shape)
            ]
            starts, step = REDUCTIONS[equation.primitive]
            start = _pick(starts, kind, equation)
            result = step.replace("$0", block.element(operand, full))
            reduced = [(full[axis], operand.shape[axis]) for axis in axes]
            inner = _summed(start, block.lines, result, reduced)
            element = "s"
        elif equation.primitive == "dot_general":
            inner, element = self._product(equation, index, block)
        else:
            element = block.element(value, index, inside=True)
            inner = block.lines
        if not value.shape:
            if element != "s":
                return [*inner, f"const {name} = {element};"]
            step = [re.sub(r"\bs\b", name, line) for line in inner]
            rounded = [f"{name} = f({name});"] if kind.name == "f" else []
            return [*step, *rounded]
        count = " * ".join(_size(size) for size in value.shape if size != 1) or "1"
        lines = [*inner, f"{name}[t++] = {element};"]
        loops = _nest([*zip(index, value.shape, strict=True)], lines)
        if loops[0].startswith("for (let "):
            loops[0] = loops[0].replace(" = 0;", " = 0, t = 0;", 1)
        else:  # a single element
            loops = [line.replace("[t++]", "[0]") for line in loops]
            loops = ["{", *_indent(loops), "}"] if len(loops) > 1 else loops
        return [f"const {name} = new {kind.array}({count});", *loops]

    def _product(self, equation: Equation, index: Index, block: "_Block") -> tuple[list[str], str]:
        left, right = equation.operands
        (left_sum, right_sum), (left_batch, right_batch) = equation.params["dimension_numbers"]
        summed = [
            f"r{place}" if left.shape[axis] != 1 else "0" for place, axis in enumerate(left_sum)
        ]
        free = iter(index)
        batch = [next(free) for _ in left_batch]

        def full(operand: Operand, sums: Sequence[int], batches: Sequence[int]) -> Index:
            known = dict(zip(sums, summed, strict=True)) | dict(zip(batches, batch, strict=True))
            return [known[a] if a in known else next(free) for a in range(len(operand.shape))]

        at_left = full(left, left_sum, left_batch)
        at_right = full(right, right_sum, right_batch)
        term = f"s += {block.element(left, at_left)} * {block.element(right, at_right)}"
        reduced = [(i, left.shape[axis]) for i, axis in zip(summed, left_sum, strict=True)]
        return _summed("0", block.lines, term, reduced), "s"

    def constant(self, array: np.ndarray) -> str:
        """The name of an array of numbers that stands at the top of the function."""
        numbers = ", ".join(map(_number, array.ravel()))
        name = f"c{len(self.constants)}"
        self.constants.append(f"const {name} = {kind_of(array.dtype).array}.of({numbers});")
        return name


class _Block:
    """The lines of a loop's body that compute elements of values without an array."""

    def __init__(self, printer: _Printer):
        self.printer = printer
        self.lines: list[str] = []
        self._known: dict[tuple[int, str], str] = {}

    def element(self, operand: Operand, index: Index, inside: bool = False) -> str:
        """Return the expression of one element; `inside` the loop that makes its array."""
        if not isinstance(operand, Value):
            if operand.size == 1:
                return _number(operand.ravel()[0])
            return f"{self.printer.constant(operand)}[{_offset(operand.shape, index)}]"
        array = self.printer.arrays.get(operand.number)
        if array and not inside:
            return f"{array}[{_offset(operand.shape, index)}]" if operand.shape else array
        key = operand.number, ",".join(index)
        if key not in self._known:
            self._known[key] = self._computed(operand, index)
        return self._known[key]

    def _computed(self, value: Value, index: Index) -> str:
        equation = self.printer.maker[value.number]
        primitive = equation.primitive
        if primitive in _MOVES:
            return self._moved(equation, index)
        if primitive == "iota":
            return index[equation.params["dimension"]]
        if primitive == "dim_as_value":
            return _size(equation.params["dim"])
        if primitive in _JOINS:
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
        name = f"e{self.printer.named}"
        self.printer.named += 1
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
                after = f"{before} + {_size(operand.shape[axis])}"
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
                f"({_size(size)} - 1 - {i})" if axis in params["dimensions"] else i
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
        return _size(start)
    moved = i if stride == 1 else f"{_size(stride)} * {i}"
    return moved if start == 0 else f"({_size(start)} + {moved})"


def _reshaped(old: Sequence[Any], new: Sequence[Any], index: Index) -> Index:
    """Indices into an array of the `old` shape for those into one of the `new`."""
    longer = [(size, i) for size, i in zip(new, index, strict=True) if size != 1]
    if [size for size in old if size != 1] == [size for size, _ in longer]:
        rest = iter(i for _, i in longer)
        return ["0" if size == 1 else next(rest) for size in old]
    offset, moved = f"({_offset(new, index)})", []
    for axis, size in enumerate(old):
        after = " * ".join(_size(s) for s in old[axis + 1 :] if s != 1)
        place = f"Math.floor({offset} / ({after}))" if after else offset
        moved.append("0" if size == 1 else place if not axis else f"{place} % {_size(size)}")
    return moved


def _check(name: str, equation: Equation) -> None:
    known = (
        *(ELEMENTWISE, COMPARISONS, REDUCTIONS),
        *(_MOVES, _JOINS, _SOURCES, _ONE_TO_ONE, ("dot_general",)),
    )
    if not any(equation.primitive in table for table in known):
        raise InputError(
            f"{name} has the primitive {equation.primitive!r}, which there is no printing; expected"
            " those of nnlab.playground.primitives."
        )


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
        return _pick({"f": f"f($0 ** {y})" if y != 2 else "f($0 * $0)"}, result, equation)
    if primitive == "convert_element_type":
        return CONVERSIONS[given.name + result.name]
    if primitive == "bitcast_convert_type":
        return BITCASTS[given.name + result.name]
    return _pick(ELEMENTWISE[primitive], result, equation)


def _pick(table: Mapping[str, str], kind: Kind, equation: Equation) -> str:
    if kind.name not in table:
        raise InputError(
            f"The primitive {equation.primitive!r} of {equation.results[0].dtype.name} cannot be"
            f" printed; expected one of the kinds {', '.join(table)}."
        )
    return table[kind.name]


def _repeats(equation: Equation, place: int) -> bool:
    """Whether an element of an operand is read several times."""
    if equation.primitive in _JOINS | {"dot_general"}:
        return True
    operand, [value] = equation.operands[place], equation.results
    if equation.primitive in REDUCTIONS or equation.primitive not in _MOVES:
        return tuple(operand.shape) != tuple(value.shape) and equation.primitive not in REDUCTIONS
    return equation.primitive == "broadcast_in_dim" and _count(operand) != _count(value)


def _count(value: Operand) -> Any:
    return math.prod(value.shape)


def _offset(shape: Sequence[Any], index: Index) -> str:
    """The place of an element in row-major order."""
    place = ""
    for size, i in zip(shape, index, strict=True):
        if size == 1:
            continue
        place = (
            f"({place}) * {_size(size)} + {i}"
            if " " in place
            else (f"{place} * {_size(size)} + {i}" if place else i)
        )
    return place or "0"


def _size(size: Any) -> str:
    text = str(size)
    if not re.fullmatch(r"[\w*+\- ]+", text):
        raise InputError(f"The size {text} cannot be printed; expected sums and products of names.")
    return text if text.isalnum() else f"({text})"


def _number(number: Any) -> str:
    if isinstance(number, bool | np.bool_):
        return str(int(number))
    if isinstance(number, np.integer | int):
        return str(int(number)) if number >= 0 else f"({int(number)})"
    text = repr(float(number)).replace("inf", "Infinity").replace("nan", "NaN")
    text = text.removesuffix(".0")
    return f"({text})" if text.startswith("-") else text


def _summed(
    start: str, before: Sequence[str], step: str, reduced: Sequence[tuple[str, Any]]
) -> list[str]:
    return [f"let s = {start};", *_nest(reduced, [*before, f"{step};"])]


def _shortened(lines: Sequence[str]) -> list[str]:
    """The lines with the names that are read once replaced by what they stand for."""
    kept: list[str] = []
    rest = list(lines)
    while rest:
        line = rest.pop(0)
        match = re.fullmatch(r" *const (e\d+) = (.*);", line)
        if match:
            word = re.compile(rf"\b{match[1]}\b")
            places = [k for k, later in enumerate(rest) if word.search(later)]
            if len(places) == 1 and len(word.findall(rest[places[0]])) == 1:
                longer = word.sub(lambda _, text=match[2]: text, rest[places[0]])
                if len(longer.strip()) <= _LINE:
                    rest[places[0]] = longer
                    continue
        kept.append(line)
    return kept


def _nest(loops: Sequence[tuple[str, Any]], lines: Sequence[str]) -> list[str]:
    """Loops around lines, but none over a single element."""
    lines = list(lines)
    for i, size in reversed([(i, size) for i, size in loops if i != "0"]):
        head = f"for (let {i} = 0; {i} < {_size(size)}; {i}++) {{"
        lines = [head, *_indent(lines), "}"]
    return lines


def _indent(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]
