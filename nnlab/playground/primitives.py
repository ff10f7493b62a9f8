"""How each elementwise primitive of JAX is written in JavaScript, by the kind of its numbers.

A kind is "f" for float32, "i" for int32, "u" for uint32 and "b" for booleans, which are 0 and 1.
In a template, `$0`, `$1`, … are the operands. Floats are rounded to float32 after every operation
that is not exact (`f` is `Math.fround`), so that an elementwise result is that of JAX to the bit,
but for the last digits of functions such as `exp`. Integers wrap as in JAX.

Comparisons and conversions are listed by the kind of their operands, all others by that of the
result. What stands in none of the tables is not printed: the printer names it in its error.
"""

from typing import NamedTuple

import numpy as np

from nnlab.errors import InputError


class Kind(NamedTuple):
    """A kind of numbers.

    Attributes:
        name: "f", "i", "u" or "b".
        array: the typed array that holds them.
    """

    name: str
    array: str


KINDS = {
    "float32": Kind("f", "Float32Array"),
    "int32": Kind("i", "Int32Array"),
    "uint32": Kind("u", "Uint32Array"),
    "bool": Kind("b", "Uint8Array"),
}


def kind_of(dtype: np.dtype) -> Kind:
    """Return the kind of a dtype.

    Raises:
        InputError: it is none of those above.
    """
    if dtype.name not in KINDS:
        raise InputError(f"There is no printing {dtype.name}; expected one of {', '.join(KINDS)}.")
    return KINDS[dtype.name]


_SAME = {"f": "$0", "i": "$0", "u": "$0", "b": "$0"}

# By the kind of the result.
ELEMENTWISE: dict[str, dict[str, str]] = {
    "add": {"f": "f($0 + $1)", "i": "($0 + $1 | 0)", "u": "($0 + $1 >>> 0)"},
    "add_any": {"f": "f($0 + $1)"},
    "sub": {"f": "f($0 - $1)", "i": "($0 - $1 | 0)", "u": "($0 - $1 >>> 0)"},
    "mul": {"f": "f($0 * $1)", "i": "Math.imul($0, $1)", "u": "(Math.imul($0, $1) >>> 0)"},
    "div": {"f": "f($0 / $1)", "i": "($0 / $1 | 0)", "u": "($0 / $1 >>> 0)"},
    "rem": {"f": "f($0 % $1)", "i": "($0 % $1)", "u": "($0 % $1)"},
    "max": {"f": "Math.max($0, $1)", "i": "Math.max($0, $1)", "u": "Math.max($0, $1)"},
    "min": {"f": "Math.min($0, $1)", "i": "Math.min($0, $1)", "u": "Math.min($0, $1)"},
    "pow": {"f": "f($0 ** $1)"},
    "atan2": {"f": "f(Math.atan2($0, $1))"},
    "neg": {"f": "(-$0)", "i": "(-$0 | 0)"},
    "abs": {"f": "Math.abs($0)", "i": "Math.abs($0)"},
    "sign": {"f": "Math.sign($0)", "i": "Math.sign($0)"},
    "square": {"f": "f($0 * $0)"},
    "sqrt": {"f": "f(Math.sqrt($0))"},
    "rsqrt": {"f": "f(1 / Math.sqrt($0))"},
    "exp": {"f": "f(Math.exp($0))"},
    "exp2": {"f": "f(2 ** $0)"},
    "expm1": {"f": "f(Math.expm1($0))"},
    "log": {"f": "f(Math.log($0))"},
    "log1p": {"f": "f(Math.log1p($0))"},
    "tanh": {"f": "f(Math.tanh($0))"},
    "logistic": {"f": "f(1 / (1 + Math.exp(-$0)))"},
    "sin": {"f": "f(Math.sin($0))"},
    "cos": {"f": "f(Math.cos($0))"},
    "floor": {"f": "Math.floor($0)"},
    "ceil": {"f": "Math.ceil($0)"},
    "round": {"f": "even($0)"},
    "and": {"i": "($0 & $1)", "u": "($0 & $1 >>> 0)", "b": "($0 & $1)"},
    "or": {"i": "($0 | $1)", "u": "(($0 | $1) >>> 0)", "b": "($0 | $1)"},
    "xor": {"i": "($0 ^ $1)", "u": "(($0 ^ $1) >>> 0)", "b": "($0 ^ $1)"},
    "not": {"i": "(~$0)", "u": "(~$0 >>> 0)", "b": "(1 - $0)"},
    "shift_left": {"i": "($0 << $1)", "u": "($0 << $1 >>> 0)"},
    "shift_right_arithmetic": {"i": "($0 >> $1)"},
    "shift_right_logical": {"i": "($0 >>> $1 | 0)", "u": "($0 >>> $1)"},
    "select_n": dict.fromkeys("fiub", "($0 ? $2 : $1)"),
    "clamp": dict.fromkeys("fiu", "Math.min(Math.max($1, $0), $2)"),
    "stop_gradient": _SAME,
    "copy": _SAME,
    "copy_p": _SAME,
    "reduce_precision": {"f": "$0"},
}

# By the kind of the operands; the result is a boolean.
COMPARISONS: dict[str, str] = {
    "eq": "+($0 === $1)",
    "ne": "+($0 !== $1)",
    "lt": "+($0 < $1)",
    "le": "+($0 <= $1)",
    "gt": "+($0 > $1)",
    "ge": "+($0 >= $1)",
    "is_finite": "+Number.isFinite($0)",
}

# From a kind to a kind.
CONVERSIONS: dict[str, str] = {
    **dict.fromkeys(("ff", "ii", "uu", "bb", "bf", "bi", "bu"), "$0"),
    **dict.fromkeys(("if", "uf"), "f($0)"),
    **dict.fromkeys(("fi", "ui"), "($0 | 0)"),
    **dict.fromkeys(("fu", "iu"), "($0 >>> 0)"),
    **dict.fromkeys(("fb", "ib", "ub"), "+($0 !== 0)"),
}
BITCASTS: dict[str, str] = {
    "fi": "bits($0)",
    "fu": "(bits($0) >>> 0)",
    "if": "float($0)",
    "uf": "float($0)",
    "iu": "($0 >>> 0)",
    "ui": "($0 | 0)",
    **dict.fromkeys(("ff", "ii", "uu"), "$0"),
}

# Start, step and whether the result is rounded afterwards.
REDUCTIONS: dict[str, tuple[dict[str, str], str]] = {
    "reduce_sum": (dict.fromkeys("fiu", "0"), "s += $0"),
    "reduce_max": ({"f": "-Infinity", "i": "-2147483648"}, "s = Math.max(s, $0)"),
    "reduce_min": ({"f": "Infinity", "i": "2147483647"}, "s = Math.min(s, $0)"),
    "reduce_and": ({"b": "1"}, "s &= $0"),
    "reduce_or": ({"b": "0"}, "s |= $0"),
}

# What the templates call; it precedes every printed function.
PRELUDE = """\
const f = Math.fround;
const word = new DataView(new ArrayBuffer(4));
/** The bits of a float32, as an int32. */
function bits(x) {
  word.setFloat32(0, x);
  return word.getInt32(0);
}
/** The float32 of these bits. */
function float(i) {
  word.setInt32(0, i);
  return word.getFloat32(0);
}
/** The nearest whole number, the even one of two. */
function even(x) {
  const low = Math.floor(x);
  const rest = x - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}
"""
