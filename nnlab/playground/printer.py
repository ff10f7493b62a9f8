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

from nnlab.errors import InputError
from nnlab.playground.elements import (
    JOINS,
    MOVES,
    ONE_TO_ONE,
    RESHAPES,
    SOURCES,
    Block,
    Index,
    Scope,
    number_text,
    pick,
    size_text,
)
from nnlab.playground.primitives import (
    COMPARISONS,
    ELEMENTWISE,
    REDUCTIONS,
    kind_of,
)
from nnlab.playground.program import Equation, Operand, Program, Value, shapes, trace

_LINE = 88  # characters up to which an expression grows
_SUMS = frozenset([*REDUCTIONS, "dot_general"])


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
        self.program = program
        self.maker: dict[int, Equation] = {}
        for equation in program.equations:
            _check(name, equation)
            self.maker |= {value.number: equation for value in equation.results}
        names = {v.number: n for v, n in zip(program.arguments, arguments, strict=True)}
        self.scope = Scope(self.maker, names)
        self.arrays = self.scope.arrays
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
                self.results.append(number_text(result))
            else:
                kind = kind_of(result.dtype)
                self.results.append(
                    f"{kind.array}.of({', '.join(map(number_text, result.ravel()))})"
                )
        return [*self.scope.constants, *found]

    def _same_numbers(self, equation: Equation) -> str | None:
        """The array that holds the numbers of a result in their order already, if one does."""
        operand = equation.operands[0] if equation.primitive in RESHAPES else None
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
            costly = equation.primitive not in MOVES | SOURCES
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
        if equation is None or equation.primitive in SOURCES | _SUMS:
            return False
        if equation.primitive in MOVES:
            [operand] = equation.operands[:1]
            return isinstance(operand, Value) and self._computed(operand)
        return True

    def _loop(self, value: Value, equation: Equation) -> list[str]:
        """Lines that make the array of a value."""
        kind, name = kind_of(value.dtype), f"v{value.number}"
        index = [f"a{axis}" if size != 1 else "0" for axis, size in enumerate(value.shape)]
        block = Block(self.scope)
        inner: list[str] = []
        if equation.primitive in REDUCTIONS:
            [operand] = equation.operands
            axes, within = equation.params["axes"], iter(index)
            full = [
                (f"r{axis}" if size != 1 else "0") if axis in axes else next(within)
                for axis, size in enumerate(operand.shape)
            ]
            starts, step = REDUCTIONS[equation.primitive]
            start = pick(starts, kind, equation)
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
        count = " * ".join(size_text(size) for size in value.shape if size != 1) or "1"
        lines = [*inner, f"{name}[t++] = {element};"]
        loops = _nest([*zip(index, value.shape, strict=True)], lines)
        if loops[0].startswith("for (let "):
            loops[0] = loops[0].replace(" = 0;", " = 0, t = 0;", 1)
        else:  # a single element
            loops = [line.replace("[t++]", "[0]") for line in loops]
            loops = ["{", *_indent(loops), "}"] if len(loops) > 1 else loops
        return [f"const {name} = new {kind.array}({count});", *loops]

    def _product(self, equation: Equation, index: Index, block: Block) -> tuple[list[str], str]:
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


def _check(name: str, equation: Equation) -> None:
    known = (
        *(ELEMENTWISE, COMPARISONS, REDUCTIONS),
        *(MOVES, JOINS, SOURCES, ONE_TO_ONE, ("dot_general",)),
    )
    if not any(equation.primitive in table for table in known):
        raise InputError(
            f"{name} has the primitive {equation.primitive!r}, which there is no printing; expected"
            " those of nnlab.playground.primitives."
        )


def _repeats(equation: Equation, place: int) -> bool:
    """Whether an element of an operand is read several times."""
    if equation.primitive in JOINS | {"dot_general"}:
        return True
    operand, [value] = equation.operands[place], equation.results
    if equation.primitive in REDUCTIONS or equation.primitive not in MOVES:
        return tuple(operand.shape) != tuple(value.shape) and equation.primitive not in REDUCTIONS
    return equation.primitive == "broadcast_in_dim" and _count(operand) != _count(value)


def _count(value: Operand) -> Any:
    return math.prod(value.shape)


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
        head = f"for (let {i} = 0; {i} < {size_text(size)}; {i}++) {{"
        lines = [head, *_indent(lines), "}"]
    return lines


def _indent(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]
