"""The C++ of an own term: each step of its program as an expression of vectors.

`nnlab/kernels/cpp/term_vectors.h` has the functions that are called here. Floats are float32 and
whole numbers int32; what else there is, and any primitive without an entry below, has no native
form, and the term runs on XLA's body.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from jax.lax import GatherScatterMode, RoundingMethod

from nnlab.kernels.term_programs import NotNativeError, Place, Program, Step

Kind = Literal["value", "input_rule", "filter_rule"]

_LONGEST_TABLE = 2**16
_TYPES = {"float32": "V", "int32": "Mask<V>", "bool": "Mask<V>"}


def source_of(program: Program, kind: Kind) -> str:
    """Return the file that a library for this term, or this slope of one, is compiled from.

    Raises:
        NotNativeError: a step has no native form.
    """
    writer = _Writer(program)
    return f"""#include "term_loops.h"

namespace nnlab {{
namespace {{
{"".join(writer.tables)}
template <class V>
__attribute__((always_inline)) inline V term(V x, V w, [[maybe_unused]] V one) {{
{"".join(f"  {line}{chr(10)}" for line in writer.lines)}}}

}}  // namespace

extern "C" __attribute__((visibility("default"))) const Loops nnlab_term = NNLAB_{kind.upper()};

}}  // namespace nnlab
"""


class _Writer:
    """Goes through the steps of a program and writes a line for each."""

    def __init__(self, program: Program):
        self.tables: list[str] = []
        self.lines: list[str] = []
        self.values: list[tuple[str, str]] = [("x", "float32"), ("w", "float32")]  # and dtypes
        known: dict[str, tuple[str, str]] = {}
        for step in program.steps:
            name = f"v{len(self.values)}"
            dtype = str(step.result.dtype)
            if dtype not in _TYPES:
                raise NotNativeError(f"numbers of {dtype} have no native form")
            write = _EXPRESSIONS.get(step.primitive.name)
            if write is None or step.result.size != 1:
                raise NotNativeError(f"{step.primitive.name} has no native form")
            text = write(self, step)
            if text not in known:  # a user's x - w, written twice, is one step
                self.lines.append(f"const {_TYPES[dtype]} {name} = {text};")
            self.values.append(known.setdefault(text, (name, dtype)))
        text, dtype = self.at(program.result), self.dtype(program.result)
        self.lines.append(f"return {_converted(text, dtype, 'float32')};")

    def at(self, place: Place) -> str:
        """The expression of an operand."""
        if isinstance(place, int):
            return self.values[place][0]
        if place.size != 1:
            raise NotNativeError("an array that is not a table has no native form")
        (number,) = place.ravel()
        if place.dtype == np.bool_:
            return f"whole<V>({-int(number)})"
        if place.dtype == np.int32:
            return "whole<V>(INT32_MIN)" if number == -(2**31) else f"whole<V>({number})"
        if place.dtype != np.float32:
            raise NotNativeError(f"numbers of {place.dtype} have no native form")
        return f"constant<V>({_literal(number)})"

    def dtype(self, place: Place) -> str:
        return self.values[place][1] if isinstance(place, int) else str(place.dtype)

    def look_up(self, table: Place, indices: Sequence[Place]) -> str:
        """The element of an array of constants, at the indices in range nearest to these."""
        if isinstance(table, int) or len(indices) != table.ndim:
            raise NotNativeError(
                "a look-up in anything but an array of constants has no native form"
            )
        if table.dtype != np.float32 or not 0 < table.size <= _LONGEST_TABLE:
            what = f"{table.dtype}{list(table.shape)}"
            raise NotNativeError(
                f"a table of {what} has no native form, only float32 of {_LONGEST_TABLE} at most"
            )
        name = f"table{len(self.tables)}"
        numbers = ", ".join(map(_literal, table.ravel()))
        self.tables.append(f"alignas(64) const float {name}[] = {{{numbers}}};\n")
        at = "whole<V>(0)"
        for index, size in zip(indices, table.shape, strict=True):
            at = f"({at} * {size} + in_range<V>({self.at(index)}, {size}))"
        return f"look_up<V>({name}, {at})"


def _literal(number: Any) -> str:
    if np.isnan(number):
        return '__builtin_nanf("")'
    if np.isinf(number):
        return "-__builtin_inff()" if number < 0 else "__builtin_inff()"
    return f"{float(number).hex()}f"


def _converted(text: str, dtype: str, to: str) -> str:
    if dtype == to:
        return text
    forms = {
        ("bool", "float32"): "({0} ? constant<V>(1.0f) : V{{}})",
        ("bool", "int32"): "({0} & whole<V>(1))",
        ("int32", "float32"): "to_float<V>({0})",
        ("float32", "int32"): "to_whole({0})",
        ("float32", "bool"): "({0} != V{{}})",
        ("int32", "bool"): "({0} != whole<V>(0))",
    }
    if (dtype, to) not in forms:
        raise NotNativeError(f"numbers of {dtype} have no native form")
    return forms[dtype, to].format(text)


Write = Callable[[_Writer, Step], str]


def _form(whole: str | None, floating: str | None = None) -> Write:
    """An expression {0}, {1}, … of the operands, another one where the first is floating."""

    def write(writer: _Writer, step: Step) -> str:
        first = writer.dtype(step.operands[0])
        form = floating if first == "float32" and floating else whole
        if form is None:
            raise NotNativeError(f"{step.primitive.name} of {first} has no native form")
        return form.format(*map(writer.at, step.operands))

    return write


def _same(writer: _Writer, step: Step) -> str:
    return writer.at(step.operands[0])


def _larger_or_smaller(which: str, relation: str) -> Write:
    def write(writer: _Writer, step: Step) -> str:
        a, b = step.operands
        texts = writer.at(a), writer.at(b)
        if writer.dtype(a) != "float32":
            return f"({texts[0]} {relation} {texts[1]} ? {texts[0]} : {texts[1]})"
        # The instruction gives its second operand where one is NaN.
        if _is_number(a):
            return f"raw_{which}({texts[0]}, {texts[1]})"
        if _is_number(b):
            return f"raw_{which}({texts[1]}, {texts[0]})"
        return f"{'larger' if which == 'max' else 'smaller'}({texts[0]}, {texts[1]})"

    return write


def _is_number(place: Place) -> bool:
    return not isinstance(place, int) and not np.isnan(place).any()


def _clamp(writer: _Writer, step: Step) -> str:
    low, x, high = step.operands
    if writer.dtype(x) != "float32" or not (_is_number(low) and _is_number(high)):
        raise NotNativeError("clamp by anything but constants has no native form")
    return f"raw_min({writer.at(high)}, raw_max({writer.at(low)}, {writer.at(x)}))"


def _select(writer: _Writer, step: Step) -> str:
    which, *cases = step.operands
    if writer.dtype(which) != "bool" or len(cases) != 2:
        raise NotNativeError("a choice by anything but a comparison has no native form")
    return "({0} ? {2} : {1})".format(*map(writer.at, step.operands))


def _integer_pow(writer: _Writer, step: Step) -> str:
    base, exponent = writer.at(step.operands[0]), step.params["y"]
    if writer.dtype(step.operands[0]) != "float32" or not 0 < abs(exponent) <= 16:
        raise NotNativeError(f"a power of {exponent} has no native form")
    # x^5 = (x^2)^2 x, and so on.
    text = base
    for digit in f"{abs(exponent):b}"[1:]:
        text = f"square({text})"
        text = f"({text} * {base})" if digit == "1" else text
    return text if exponent > 0 else f"constant<V>(1.0f) / {text}"


def _convert(writer: _Writer, step: Step) -> str:
    place = step.operands[0]
    return _converted(writer.at(place), writer.dtype(place), str(step.result.dtype))


def _bitcast(writer: _Writer, step: Step) -> str:
    place, to = step.operands[0], str(step.result.dtype)
    if {writer.dtype(place), to} != {"float32", "int32"}:
        raise NotNativeError(f"bits of {writer.dtype(place)} as {to} have no native form")
    return f"(({_TYPES[to]})({writer.at(place)}))"


def _round(writer: _Writer, step: Step) -> str:
    if step.params["rounding_method"] != RoundingMethod.TO_NEAREST_EVEN:
        raise NotNativeError("rounding away from zero has no native form")
    return f"rounded<To::kNearestEven>({writer.at(step.operands[0])})"


def _dynamic_slice(writer: _Writer, step: Step) -> str:
    table, *indices = step.operands
    return writer.look_up(table, indices)


def _gather(writer: _Writer, step: Step) -> str:
    table, index = step.operands
    found, mode = writer.look_up(table, [index]), step.params["mode"]
    at, size = writer.at(index), table.size if isinstance(table, np.ndarray) else 0
    if mode in (GatherScatterMode.CLIP, GatherScatterMode.PROMISE_IN_BOUNDS):
        return found
    filling = step.params["fill_value"]
    other = f"constant<V>({_literal(np.nan if filling is None else filling)})"
    return f"(({at} >= whole<V>(0)) & ({at} < whole<V>({size})) ? {found} : {other})"


_EXPRESSIONS: dict[str, Write] = {
    **dict.fromkeys(("copy", "copy_p", "stop_gradient", "squeeze", "reshape"), _same),
    "broadcast_in_dim": _same,
    "convert_element_type": _convert,
    "bitcast_convert_type": _bitcast,
    "neg": _form("-{0}"),
    "abs": _form(None, "absolute({0})"),
    "sign": _form(None, "sign({0}, one)"),
    "add": _form("{0} + {1}"),
    "add_any": _form("{0} + {1}"),
    "sub": _form("{0} - {1}", "subtract({0}, {1}, one, true)"),
    "mul": _form("{0} * {1}"),
    "div": _form(None, "{0} / {1}"),
    "square": _form("square({0})"),
    "integer_pow": _integer_pow,
    "sqrt": _form(None, "square_root({0})"),
    "rsqrt": _form(None, "constant<V>(1.0f) / square_root({0})"),
    "floor": _form(None, "rounded<To::kFloor>({0})"),
    "ceil": _form(None, "rounded<To::kCeil>({0})"),
    "round": _round,
    "max": _larger_or_smaller("max", ">"),
    "min": _larger_or_smaller("min", "<"),
    "clamp": _clamp,
    "select_n": _select,
    **{
        name: _form(f"({{0}} {relation} {{1}})")
        for name, relation in {
            **dict(lt="<", le="<=", gt=">", ge=">=", eq="==", ne="!="),
            **{"and": "&", "or": "|", "xor": "^"},
        }.items()
    },
    "not": _form("~{0}"),
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
}
