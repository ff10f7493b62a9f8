"""What the functions between layers do to values, a primitive of JAX a rule.

A step that has none is a table where it is a function of one value (`nnlab.deployment.tables`).
A rule takes the step, its inputs and the builder, and gives a value. An input is a `Value`, a NumPy
array where it does not depend on the images, or a `Comparison`.

================================================  =================================================
primitives                                        become
================================================  =================================================
add, sub, mul, div, neg by numbers a channel      part of the next layer's constants
max, min, select_n by one number                  a clip of codes
add, sub of two values                            `add`
pad by -inf, slice, max, reduce_window_max        `max_pool`, or `or_pool` of signs
reduce_window_sum, reduce_sum                     `sum_pool`, `sum`
concatenate, slice of channels                    `concatenate`
pad by 0, also between pixels                     `pad`
reshape, squeeze                                  `flatten`; `tokens` of pixels
attention                                         `scores`, `softmax`, `mix`
add by numbers of every token                     `rows`
concatenate of tokens that are constants          `prepend`
slice of tokens                                   `take`
================================================  =================================================
"""

import dataclasses
import itertools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from nnlab.deployment import encoders
from nnlab.deployment.given import Comparison, Given, Rule
from nnlab.deployment.texts import Lengths
from nnlab.deployment.values import Pair, Pool, Value


def translated(given: Given) -> Any:
    """The value of a step between layers.

    Raises:
        InputError: it has no rule, or not for such inputs.
    """
    rule = RULES.get(given.step.op)
    if rule is None:
        raise given.refuse(
            f"the operation {given.step.op}",
            "layers, BatchNorm, ReLU or another clip, pooling, sums, concatenation and flattening",
        )
    if given.step.op not in _OF_HEADS and any(getattr(x, "heads", 0) for x in given.inputs):
        raise given.refuse(f"the operation {given.step.op} of heads", "their attention")
    compared = any(isinstance(x, Comparison) for x in given.inputs)
    if compared and given.step.op != "select_n":
        raise given.refuse("a comparison", "one that clips")
    return rule(given)


def _passed(given: Given) -> Any:
    return given.inputs[0]


def _converted(given: Given) -> Any:
    dtype = given.params["new_dtype"]
    if not jnp.issubdtype(dtype, jnp.floating):
        raise given.refuse(f"a conversion to {dtype}", "one to floats")
    return given.inputs[0]


def _a_channel(given: Given, array: np.ndarray) -> np.ndarray:
    """A number a channel, or one for all."""
    array = np.asarray(array, np.float64)
    rows = array.reshape(-1, array.shape[-1] if array.ndim else 1)
    if not (np.isfinite(rows).all() and (rows == rows[0]).all()):
        raise given.refuse(f"{given.step.op} by numbers of every position", "finite ones a channel")
    return rows[0][:1] if (rows[0] == rows[0][0]).all() else rows[0]


def _one_number(given: Given, array: np.ndarray) -> float:
    if np.ndim(array) == 0 or np.ptp(array) == 0:
        return float(np.ravel(array)[0])
    raise given.refuse(f"{given.step.op} by an array", "by one number")


def _sum(given: Given) -> Value:
    x, y = given.inputs
    if isinstance(x, Value) and isinstance(y, Value):
        if given.step.op == "sub":
            y = given.build.affine(y, -np.ones(1), np.zeros(1))
        return given.build.sum(x, y, given.name("add"), own_step=len(given.result) == 3)
    sign = np.array([-1.0 if given.step.op == "sub" else 1.0])
    if isinstance(x, Value) and given.step.op != "sub" and _are_rows(y):
        return encoders.with_rows(given.build, x, np.asarray(y[0], np.float64), given.name("add"))
    if isinstance(x, Value):
        return given.build.affine(x, np.ones(1), sign * _a_channel(given, y))
    return given.build.affine(y, sign, _a_channel(given, x))


def _are_rows(array: np.ndarray) -> bool:
    """Whether these are numbers of every token, [1 or batch, tokens, features]."""
    if array.ndim != 3 or not np.isfinite(array).all():
        return False
    return bool((array == array[:1]).all() and (array != array[:, :1]).any())


def _product(given: Given) -> Value:
    x, y = given.inputs
    if isinstance(x, Value) and isinstance(y, Value):
        raise given.refuse(f"the operation {given.step.op} of two values", "one by constants")
    if given.step.op == "mul":
        x, y = (x, y) if isinstance(x, Value) else (y, x)
        return given.build.affine(x, _a_channel(given, y), np.zeros(1))
    if not isinstance(x, Value):
        raise given.refuse("a division by a value", "one by constants")
    return given.build.affine(x, 1 / _a_channel(given, y), np.zeros(1))


def _negative(given: Given) -> Value:
    return given.build.affine(given.inputs[0], -np.ones(1), np.zeros(1))


def _extreme(given: Given) -> Value:
    x, y = given.inputs
    if isinstance(x, Value) and isinstance(y, Value):
        return _larger(given, x, y)
    x, y = (x, y) if isinstance(x, Value) else (y, x)
    number = _one_number(given, y)
    ends = (number, math.inf) if given.step.op == "max" else (-math.inf, number)
    return x.clipped(*ends)


def _larger(given: Given, x: Value, y: Value) -> Value:
    """The maximum of pixels of one padded image."""
    pools = [v.pool for v in (x, y) if v.pool]
    moves = {(pool[1:], v.low, v.high) for pool, v in zip(pools, (x, y), strict=False)}
    if given.step.op == "max" and len(pools) == 2 and len(moves) == 1 and x.has_source_of(y):
        return x.pooled(pools[0]._replace(taps=pools[0].taps | pools[1].taps))
    raise given.refuse(f"the {given.step.op} of two values", "maxima over windows")


def _compared(given: Given) -> Comparison:
    x, y = given.inputs
    if isinstance(x, Value) and not isinstance(y, Value):
        return Comparison(x, given.step.op in ("gt", "ge"), _one_number(given, y))
    raise given.refuse("a comparison", "one of a value with a number")


def _selected(given: Given) -> Value:
    """where(x > c, c, x) and the like."""
    where, *cases = given.inputs
    for place, (chosen, other) in enumerate([cases, cases[::-1]]):
        # `chosen` is a number, taken where the comparison is false (0) or true (1).
        if not isinstance(where, Comparison) or isinstance(chosen, Value | Comparison):
            continue
        if not isinstance(other, Value) or not other.has_source_of(where.value):
            continue
        same = (other.pool, other.flat) == (where.value.pool, where.value.flat)
        upper = where.above == bool(place)
        inside = other.low <= where.number if upper else where.number <= other.high
        if same and inside and _one_number(given, chosen) == where.number:
            ends = (-math.inf, where.number) if upper else (where.number, math.inf)
            return other.clipped(*ends)
    raise given.refuse("a choice of values", "one that clips")


def _padded(given: Given) -> Value:
    x, filling = given.inputs
    if not isinstance(x, Value):
        raise given.refuse("padding by a value", "by 0, or by -inf before a maximum")
    number, (batch, *sides) = _one_number(given, filling), given.params["padding_config"]
    padding = [[int(low), int(high)] for low, high, _ in sides]
    between = [int(inner) for *_, inner in sides]
    negative = min(min(pair) for pair in padding) < 0
    if any(batch) or negative or len(sides) != 3 or x.flat or between[2]:
        raise given.refuse(f"padding of {padding}", "zeros or more around height, width, channels")
    if number == 0:
        return given.build.padded(x, padding, between[:2], given.name("pad"))
    if number != -math.inf or padding[2] != [0, 0] or any(between):
        raise given.refuse(f"padding by {number:g}", "by 0, or by -inf before a maximum")
    x = given.build.settled(x) if x.pool else x
    (rows, columns), size = padding[:2], given.shapes[0][1:3]
    pads = (rows[0], rows[1]), (columns[0], columns[1])
    return x.pooled(Pool(frozenset(), (1, 1), pads, (size[0], size[1])))


def _sliced(given: Given) -> Value:
    x, shape, params = given.inputs[0], given.shapes[0], given.params
    first, last = params["start_indices"], params["limit_indices"]
    strides = params["strides"] or (1,) * len(shape)
    parts = list(zip(first, last, strides, strict=True))
    changed = [part != (0, size, 1) for part, size in zip(parts, shape, strict=True)]
    if changed[-1] and not any(changed[:-1]):
        order = np.arange(*parts[-1])
        return given.build.cut(x, order, given.name("cut"))
    if len(shape) == 3 and not changed[0] and not changed[-1] and strides[1] == 1:
        return encoders.taken(given.build, x, first[1], last[1], given.step.scope)
    if changed[0] or changed[-1] or len(shape) != 4 or x.flat:
        raise given.refuse("a slice", "one of pixels or of channels")
    x = given.build.settled(x) if x.pool and x.pool.taps else x
    size = (shape[1], shape[2])
    pads = ((0, 0), (0, 0))
    if x.pool:
        size, pads = x.pool.size, x.pool.padding
    tap, moves = (first[1], first[2]), (strides[1], strides[2])
    return x.pooled(Pool(frozenset([tap]), moves, pads, size))


def _window(given: Given) -> dict[str, Any]:
    """Attributes of a pool."""
    params = given.params
    names = "window_dimensions", "window_strides", "padding"
    window, strides, padding = (tuple(params[name]) for name in names)
    dilated = {*params["base_dilation"], *params["window_dilation"]} != {1}
    outside = window[:1] + window[3:], strides[:1] + strides[3:], padding[:1] + padding[3:]
    if len(window) != 4 or dilated or outside != ((1, 1), (1, 1), ((0, 0), (0, 0))):
        raise given.refuse(f"windows {window}", "windows along height and width")
    return {
        "window": [int(n) for n in window[1:3]],
        "strides": [int(n) for n in strides[1:3]],
        "padding": [[int(n) for n in sides] for sides in padding[1:3]],
    }


def _every(height: int, width: int) -> frozenset[Pair]:
    """All pixels of a window."""
    return frozenset(itertools.product(range(height), range(width)))


def _window_max(given: Given) -> Value:
    x, window, (_, height, width, _) = given.inputs[0], _window(given), given.shapes[0]
    x = given.build.settled(x) if x.pool else x
    taps = _every(*window["window"])
    strides, (rows, columns) = tuple(window["strides"]), map(tuple, window["padding"])
    return x.pooled(Pool(taps, strides, (rows, columns), (height, width)))


def _window_sum(given: Given) -> Value:
    return given.build.window_sums(given.inputs[0], _window(given), given.name("window_sum"))


def _whole(given: Given) -> Value:
    """The sum or maximum over height and width."""
    x, shape = given.inputs[0], given.shapes[0]
    if tuple(given.params["axes"]) != (1, 2) or len(shape) != 4:
        raise given.refuse(
            f"{given.step.op} over axes {tuple(given.params['axes'])} of {len(shape)}",
            "one over height and width",
        )
    if given.step.op == "reduce_sum":
        scope = f"{given.step.scope}/" if given.step.scope else ""
        return given.build.mean_sum(x, f"{scope}mean")
    x = given.build.settled(x) if x.pool else x
    size = (shape[1], shape[2])
    taps = _every(*size)
    pooled = x.pooled(Pool(taps, size, ((0, 0), (0, 0)), size))
    return dataclasses.replace(pooled, size=(1, 1)).flattened()


def _concatenated(given: Given) -> Value:
    last = len(given.shapes[0]) - 1
    x = given.inputs[-1]
    if last == 2 and given.params["dimension"] == 1 and isinstance(x, Value):
        before = given.inputs[:-1]
        if not any(isinstance(each, Value) for each in before):
            rows = np.concatenate([np.asarray(each, np.float64) for each in before], axis=1)
            if (rows == rows[:1]).all():
                return encoders.prepended(given.build, x, rows[0], given.name("prepend"))
    if given.params["dimension"] != last or not all(isinstance(x, Value) for x in given.inputs):
        raise given.refuse("a concatenation of pixels or constants", "one of channels")
    channels = sum(shape[-1] for shape in given.shapes)
    return given.build.concatenated(given.inputs, channels, given.name("concatenate"))


def _flattened(given: Given) -> Value:
    x, before = given.inputs[0], given.shapes[0]
    after = given.result
    if before == after:
        return x
    one = len(before) == 4 or before[1] == 1
    if one and not x.heads and after == (before[0], math.prod(before[1:])):
        return x.flattened()
    if len(before) == 3 and len(after) == 4 and before[:2] == after[:2]:
        return dataclasses.replace(x, heads=after[2])
    if x.heads and after == (*before[:2], math.prod(before[2:])):
        return dataclasses.replace(x, heads=0)
    if len(before) == 4 and not x.heads and after == _pixels(before):
        return encoders.tokens_of_pixels(given.build, x, given.step.scope)
    raise given.refuse(f"a reshape of {before[1:]} to {after[1:]}", "one of an image to one vector")


def _pixels(shape: tuple[int, ...]) -> tuple[int, ...]:
    batch, height, width, channels = shape
    return batch, height * width, channels


def _attention(given: Given) -> Value:
    *values, _ = given.inputs
    queries, masks = values[:3], values[3:]
    known = all(isinstance(x, Value) and x.heads for x in queries)
    if not known or not all(isinstance(mask, Lengths) for mask in masks):
        raise given.refuse("an attention to constants or with a mask", "one of tokens by lengths")
    _, tokens, _, size = given.shapes[0]
    return encoders.attended(
        given.build, queries, bool(masks), tokens, size, given.step.scope or "attention"
    )


_PASSED = ("copy", "stop_gradient", "name")
_OF_HEADS = ("reshape", "attention", "convert_element_type", *_PASSED)

RULES: dict[str, Rule] = {
    "add": _sum,
    "add_any": _sum,
    "sub": _sum,
    "mul": _product,
    "div": _product,
    "neg": _negative,
    "max": _extreme,
    "min": _extreme,
    **dict.fromkeys(("gt", "ge", "lt", "le"), _compared),
    "select_n": _selected,
    "pad": _padded,
    "slice": _sliced,
    "reduce_window_max": _window_max,
    "reduce_window_sum": _window_sum,
    "reduce_sum": _whole,
    "reduce_max": _whole,
    "concatenate": _concatenated,
    "reshape": _flattened,
    "squeeze": _flattened,
    "attention": _attention,
    **dict.fromkeys(_PASSED, _passed),
    "convert_element_type": _converted,
}
