"""What every operation of an integer network is in C: the body of a function of its inputs.

A body takes `x` (and `x1`, …) and fills `y`; $role is the constant array of that role. Sizes are
literals, so that a compiler sees all of them, and the innermost loop of a sum runs over the
outputs, whose weights lie side by side.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nnlab.deployment.graph import Node, window_attributes
from nnlab.errors import InputError

C_TYPES = {
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32)},
    "float32": "float",
}

HELPERS = """\
static inline int32_t clamped(int32_t v, int32_t low, int32_t high)
{
    return v < low ? low : v > high ? high : v;
}

/* floor(v / 2^shift): C leaves the shift of a negative number to the compiler. */
static inline int32_t shifted(int32_t v, int shift)
{
    return v >= 0 ? v >> shift : ~(~v >> shift);
}

/* The nearest integer, of two the even one, within [low, high]; 0 for what is not a number. */
static inline int32_t rounded(float x, float scale, int32_t low, int32_t high)
{
    volatile float product = x * scale; /* rounded to float on every processor */
    union {
        float number;
        uint32_t bits;
    } held = {product};
    float v = product, rest;
    int32_t n;
    if ((held.bits & 0x7fffffffu) > 0x7f800000u)
        return clamped(0, low, high);
    if (v <= (float)low)
        return low;
    if (v >= (float)high)
        return high;
    n = (int32_t)v;
    rest = v - (float)n;
    if (rest > 0.5f || (rest == 0.5f && n % 2 != 0))
        n++;
    if (rest < -0.5f || (rest == -0.5f && n % 2 != 0))
        n--;
    return n;
}

static inline int32_t ones(uint32_t v)
{
    v -= v >> 1 & 0x55555555u;
    v = (v & 0x33333333u) + (v >> 2 & 0x33333333u);
    return (int32_t)(((v + (v >> 4)) & 0x0f0f0f0fu) * 0x01010101u >> 24);
}"""


class Extent(NamedTuple):
    """A value in C: the type of its numbers, and its sizes; vectors are one row of one pixel."""

    type: str
    height: int
    width: int
    channels: int

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def size(self) -> int:
        return self.pixels * self.channels


Body = tuple[str, dict[str, np.ndarray]]


def step_body(node: Node, own: dict[str, np.ndarray], inputs: list[Extent], result: Extent) -> Body:
    """Return the body of a node's function and its constants; "" for one that computes nothing.

    Args:
        node: an operation of `nnlab.deployment.graph`.
        own: its arrays by role.
        inputs, result: shapes of what it takes and gives.

    Raises:
        InputError: C has no such operation.
    """
    return body_of(node)(node.attributes, own, inputs, result)


def body_of(node: Node) -> Callable[..., Body]:
    """What writes the body; errors as of `step_body`."""
    write = _BODIES.get(node.op)
    if write is None:
        raise InputError(f"node {node.name!r} has the op {node.op!r}, which has no C source.")
    return write


def _quantize(a: dict[str, Any], own: Any, inputs: list[Extent], y: Extent) -> Body:
    scale = f"{float(np.float32(a['scale'])).hex()}f"
    return (
        f"for (int i = 0; i < {y.size}; i++)\n"
        f"    y[i] = ({y.type})rounded((float)x[i], {scale}, {a['low']}, {a['high']});"
    ), {}


def _requantize(a: dict[str, Any], own: Any, inputs: list[Extent], y: Extent) -> Body:
    roles = "center", "multiplier", "offset", "shift"
    c = {role: f"${role}[{'c' if own[role].size > 1 else 0}]" for role in roles}
    shift = c["shift"]
    constants = {role: own[role].astype(np.int32) for role in roles[:3]}
    constants["shift"] = own["shift"].astype(np.uint8)
    return (
        f"""
for (int p = 0; p < {y.pixels}; p++)
    for (int c = 0; c < {y.channels}; c++) {{
        int i = p * {y.channels} + c;
        int32_t v = ((int32_t)x[i] - {c["center"]}) * {c["multiplier"]};
        v = shifted(v + ((int32_t)1 << {shift} >> 1), {shift}) + {c["offset"]};
        y[i] = ({y.type})clamped(v, {a["low"]}, {a["high"]});
    }}""",
        constants,
    )


def _add(a: dict[str, Any], own: Any, inputs: list[Extent], y: Extent) -> Body:
    return (
        f"for (int i = 0; i < {y.size}; i++)\n"
        f"    y[i] = ({y.type})clamped((int32_t)x[i] + x1[i], {a['low']}, {a['high']});"
    ), {}


def _table(a: dict[str, Any], own: Any, inputs: list[Extent], y: Extent) -> Body:
    code = f"x[i] - {a['low']}" if a["low"] >= 0 else f"x[i] + {-a['low']}"
    return f"for (int i = 0; i < {y.size}; i++)\n    y[i] = $values[{code}];", dict(own)


def _windows(
    a: dict[str, Any],
    taps: tuple[int, int],
    x: Extent,
    y: Extent,
    each: str,
    outside: str = "",
    start: str = "",
) -> str:
    """A loop over pixels of `y` and taps of their windows.

    `each` sees `in` and `sums`, the first channels of the pixels of x and y, and `t`, the tap;
    `outside` takes its place at a padded pixel, where there is no `in`; `start` begins a window.
    """
    (top, _), (left, _) = a["padding"]
    sy, sx = a["strides"]
    there = f" {{\n{_moved(outside, 3)}\n            continue;\n        }}"
    there = there if outside else "\n            continue;"
    return f"""
for (int p = 0; p < {y.pixels}; p++) {{
    {y.type} *sums = y + p * {y.channels};
    for (int o = 0; o < {y.channels}; o++)
        sums[o] = 0;{start}
    for (int t = 0; t < {taps[0] * taps[1]}; t++) {{
        int row = p / {y.width} * {sy} + t / {taps[1]} + {-top};
        int column = p % {y.width} * {sx} + t % {taps[1]} + {-left};
        if (row < 0 || row >= {x.height} || column < 0 || column >= {x.width}){there}
        const {x.type} *in = x + (row * {x.width} + column) * {x.channels};
{_moved(each, 2)}
    }}
}}"""


def _moved(text: str, levels: int) -> str:
    return "\n".join("    " * levels + line for line in text.strip("\n").split("\n"))


def _sums(term: str, signs: bool = False) -> Callable[..., Body]:
    """Sums over windows, or over vectors, of `term` of an input `v` and a weight `w[o]`."""

    def write(a: dict[str, Any], own: Any, inputs: list[Extent], y: Extent) -> Body:
        (x,) = inputs
        kernel = own["kernel"]
        kernel = (kernel << a["shift"]).astype(np.uint8) if "shift" in a else kernel

        group = kernel.shape[-2]  # channels, of one group of them

        def over(value: str) -> str:
            first, last, channel = "0", f"{y.channels}", "c"
            if group < x.channels:
                size = y.channels * group // x.channels
                first, last = f"c / {group} * {size}", f"(c / {group} + 1) * {size}"
                channel = f"c % {group}"
            return (
                f"for (int c = 0; c < {x.channels}; c++) {{\n"
                f"    {'uint32_t' if signs else 'int32_t'} v = {value};\n"
                f"    const {C_TYPES[kernel.dtype.name]} *w = "
                f"$kernel + (t * {group} + {channel}) * {y.channels};\n"
                f"    for (int o = {first}; o < {last}; o++)\n"
                f"        sums[o] += {term};\n}}"
            )

        each = over("in[c]")
        if signs:  # the number of signs of a tap
            count = f"    sums[o] += {a['channels']};\n"
            each = f"for (int o = 0; o < {y.channels}; o++)\n{count}{each}"
        if kernel.ndim == 2:
            dense = x._replace(height=1, width=x.pixels), y._replace(height=1, width=y.pixels)
            windows = {"strides": [1, 1], "padding": [[0, 0], [0, 0]]}
            return _windows(windows, (1, 1), *dense, each), {"kernel": kernel}
        outside = over(str(a["padding_value"])) if a.get("padding_value") is not None else ""
        return _windows(a, kernel.shape[:2], x, y, each, outside), {"kernel": kernel}

    return write


def _pack_signs(a: dict[str, Any], own: Any, inputs: list[Extent], y: Extent) -> Body:
    (x,) = inputs
    c = {role: f"${role}[{'c' if own[role].size > 1 else 0}]" for role in ("sign", "threshold")}
    return (
        f"""
for (int p = 0; p < {x.pixels}; p++) {{
    {y.type} *words = y + p * {y.channels};
    for (int w = 0; w < {y.channels}; w++)
        words[w] = 0;
    for (int c = 0; c < {x.channels}; c++)
        if ((int32_t)x[p * {x.channels} + c] * {c["sign"]} >= {c["threshold"]})
            words[c / 32] |= (uint32_t)1 << c % 32;
}}""",
        {
            "sign": own["sign"].astype(np.int8),
            "threshold": own["threshold"].astype(np.int32),
        },
    )


def _concatenate(a: dict[str, Any], own: Any, inputs: list[Extent], y: Extent) -> Body:
    """The channels that `order` takes from each input, to where they go."""
    starts = np.cumsum([0, *(x.channels for x in inputs)])
    order = own["order"].astype(np.int64)
    lines, constants = [], {}
    for number, x in enumerate(inputs):
        to = np.flatnonzero((order >= starts[number]) & (order < starts[number + 1]))
        if not to.size:
            continue
        narrow = np.min_scalar_type(max(y.channels, x.channels))
        constants[f"to{number}"] = to.astype(narrow)
        constants[f"from{number}"] = (order[to] - starts[number]).astype(narrow)
        lines.append(
            f"for (int p = 0; p < {y.pixels}; p++)\n"
            f"    for (int k = 0; k < {to.size}; k++)\n"
            f"        y[p * {y.channels} + $to{number}[k]] = "
            f"x{number or ''}[p * {x.channels} + $from{number}[k]];"
        )
    return "\n".join(lines), constants


def _pad(a: dict[str, Any], own: Any, inputs: list[Extent], y: Extent) -> Body:
    (x,) = inputs
    (top, _), (left, _), (first, _) = a["padding"]
    down, across = (n + 1 for n in a.get("between", [0, 0]))
    return (
        f"""
for (int i = 0; i < {y.size}; i++)
    y[i] = 0;
for (int p = 0; p < {x.pixels}; p++)
    for (int c = 0; c < {x.channels}; c++) {{
        int row = p / {x.width} * {down} + {top}, column = p % {x.width} * {across} + {left};
        y[(row * {y.width} + column) * {y.channels} + c + {first}] = x[p * {x.channels} + c];
    }}""",
        {},
    )


def _pool(term: str, start: str = "", after: str = "") -> Callable[..., Body]:
    """`term` of what a window has so far, `sums[o]`, and of the next pixel, `in[o]`."""

    def write(a: dict[str, Any], own: Any, inputs: list[Extent], y: Extent) -> Body:
        (height, width), strides, padding = window_attributes(a)
        each = f"for (int o = 0; o < {y.channels}; o++)\n    {term}{after}"
        attributes = {"strides": strides, "padding": padding}
        return _windows(attributes, (height, width), inputs[0], y, each, start=start), {}

    return write


def _sum(a: dict[str, Any], own: Any, inputs: list[Extent], y: Extent) -> Body:
    (x,) = inputs
    return (
        f"""
for (int c = 0; c < {x.channels}; c++)
    y[c] = 0;
for (int p = 0; p < {x.pixels}; p++)
    for (int c = 0; c < {x.channels}; c++)
        y[c] += x[p * {x.channels} + c];""",
        {},
    )


def _dequantize(a: dict[str, Any], own: Any, inputs: list[Extent], y: Extent) -> Body:
    step = f"{float(np.float32(a['step'])).hex()}f"
    return f"for (int i = 0; i < {y.size}; i++)\n    y[i] = (float)x[i] * {step};", {}


_product = _sums("v * w[o]")
_distance = _sums("v > w[o] ? w[o] - v : v - w[o]")
_agreeing = _sums("-2 * ones(v ^ w[o])", signs=True)

_BODIES: dict[str, Callable[..., Body]] = {
    "quantize": _quantize,
    "requantize": _requantize,
    "add": _add,
    "table": _table,
    "conv": _product,
    "dense": _product,
    "adder_conv": _distance,
    "adder_dense": _distance,
    "pack_signs": _pack_signs,
    "binary_conv": _agreeing,
    "binary_dense": _agreeing,
    "concatenate": _concatenate,
    "pad": _pad,
    "max_pool": _pool(
        "sums[o] = first || in[o] > sums[o] ? in[o] : sums[o];",
        start="\n    int first = 1; /* no number of the window is known */",
        after="\nfirst = 0;",
    ),
    "or_pool": _pool("sums[o] |= in[o];"),
    "sum_pool": _pool("sums[o] += in[o];"),
    "sum": _sum,
    "flatten": lambda *_: ("", {}),
    "dequantize": _dequantize,
}
