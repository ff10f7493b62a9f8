r"""Proof that no number of an integer network leaves its accumulator.

With values from l to h and filters w, sums over the terms k of a filter lie within

================  =============================================  ================================
op                low                                            high
================  =============================================  ================================
conv, dense       min_o sum_k min(w l, w h)                      max_o sum_k max(w l, w h)    (1)
adder             -max_o sum_k max(abs(w - l), abs(w - h))       0                            (2)
binary            -(taps) (channels)                             (taps) (channels)            (3)
sum, sum_pool     positions l                                    positions h                  (4)
scores            -(size) max(abs(l), abs(h))²                   as much above 0
================  =============================================  ================================

each attained by some input, so no narrower accumulator is safe for all; padding takes a term's
place with a 0 (or the adder's padding value), so it is counted as a value like any other. In

.. math:: y = o + \lfloor ((x - c) m + 2^{s-1}) / 2^s \rfloor                                 (5)

the difference, the product with its half, and the sum are bounded by the same arithmetic.
"""

import math
from typing import NamedTuple

import numpy as np

from nnlab.deployment.graph import Arrays, IntegerNetwork, Node, window_attributes
from nnlab.deployment.tokens import LARGEST_SCORE, MOST_FEATURES, UNIT
from nnlab.errors import InputError

FLOAT_EXACT = 2**24  # all integers up to it are float32 numbers


class Bounds(NamedTuple):
    """Bounds of a value's integers, both attainable as far as those of its inputs are."""

    low: int
    high: int


INPUTS = ("images", "lengths", "types")  # names of what a network is given
WORDS = Bounds(-(2**31), 2**31 - 1)  # nothing is computed with packed words but by bits


def accumulator_bounds(network: IntegerNetwork) -> dict[str, Bounds]:
    """Bounds of every node's value by its name; `dequantize` has those of its input.

    Raises:
        InputError: an operation or one of its inputs, attributes or arrays is not in the table of
            `nnlab.deployment.graph`, or some intermediate number could leave int32.
    """
    known: dict[str, Bounds] = dict.fromkeys(INPUTS, WORDS)
    for node in network.nodes:
        if node.name in known:
            raise InputError(f"the network has two values called {node.name!r}, expected one.")
        for name in node.inputs:
            if name not in known:
                raise InputError(
                    f"node {node.name!r} takes {name!r}, which no node before it gives."
                )
        inputs = [known[name] for name in node.inputs]
        try:
            known[node.name] = node_bounds(node, network.arrays, inputs)
        except KeyError as error:
            raise InputError(
                f"node {node.name!r} of op {node.op!r} lacks {error.args[0]!r}."
            ) from error
    return {name: bounds for name, bounds in known.items() if name not in INPUTS}


def node_bounds(node: Node, arrays: Arrays, inputs: list[Bounds]) -> Bounds:
    """Bounds of one node's value, given those of its inputs; errors as of `accumulator_bounds`."""
    attributes = node.attributes
    own = {role: arrays[name].astype(np.int64) for role, name in node.arrays.items()}

    def held(low: int, high: int, limit: int = 2**31 - 1) -> Bounds:
        if not -limit <= low <= high <= limit:
            raise InputError(
                f"node {node.name!r} could reach numbers from {low} to {high}, "
                f"expected them within ±{limit}."
            )
        return Bounds(int(low), int(high))

    match node.op:
        case "quantize":
            return held(attributes["low"], attributes["high"], FLOAT_EXACT)
        case "requantize":
            low, high = _requantized(own, inputs[0])
            held(low, high)
            return _clamped(attributes)
        case "add":
            held(sum(b.low for b in inputs), sum(b.high for b in inputs))
            return _clamped(attributes)
        case "table":
            first, last = (end - attributes["low"] for end in inputs[0])
            if first < 0 or last >= len(own["values"]):
                raise InputError(
                    f"node {node.name!r} has a table of {len(own['values'])} values from "
                    f"{attributes['low']} on, expected one for each of {inputs[0]}."
                )
            values = own["values"][first : last + 1]
            return held(values.min(), values.max())
        case "conv" | "dense":
            filters = own["kernel"].reshape(-1, own["kernel"].shape[-1])
            ends = np.stack([filters * inputs[0].low, filters * inputs[0].high])
            least, most = ends.min(axis=0), ends.max(axis=0)
            if node.op == "conv":  # padding, and nothing that is added up may be larger either
                least, most = np.minimum(least, 0), np.maximum(most, 0)
            sums = least.sum(axis=0).min(), most.sum(axis=0).max()
            return held(*sums)
        case "adder_conv" | "adder_dense":
            return held(-_distance(attributes, own["kernel"], _bytes(node, inputs[0])), 0)
        case "binary_conv" | "binary_dense":
            taps = int(np.prod(own["kernel"].shape[:-2]))
            return held(-taps * attributes["channels"], taps * attributes["channels"])
        case "sum":
            positions = attributes["positions"]
            return held(positions * inputs[0].low, positions * inputs[0].high)
        case "sum_pool":
            window, _, padding = window_attributes(attributes)
            low, high = _with_padding(padding, inputs[0])
            return held(math.prod(window) * low, math.prod(window) * high)
        case "pad":
            between = attributes.get("between", [0, 0])
            return _with_padding([*attributes["padding"], between], inputs[0])
        case "max_pool" | "or_pool":
            window, _, padding = window_attributes(attributes)
            if any(max(sides) >= size for sides, size in zip(padding, window, strict=True)):
                raise InputError(
                    f"node {node.name!r} has padding {padding} around windows {window}, expected "
                    "less than a window."
                )
            return inputs[0]
        case "concatenate":
            return held(min(b.low for b in inputs), max(b.high for b in inputs))
        case "pack_signs":
            return WORDS
        case "flatten" | "dequantize" | "take" | "tokens":
            return inputs[0]
        case "embed" | "rows":
            return held(own["values"].min(), own["values"].max())
        case "prepend":
            low, high = int(own["values"].min()), int(own["values"].max())
            return held(min(low, inputs[0].low), max(high, inputs[0].high))
        case "layer_norm":
            features = attributes["features"]
            held(0, features * (inputs[0].high - inputs[0].low))
            if features > MOST_FEATURES:
                raise InputError(f"node {node.name!r} has {features} features, expected fewer.")
            return Bounds(1 - UNIT, UNIT - 1)
        case "scores":
            query, key = (max(-bounds.low, bounds.high) for bounds in inputs)
            most = attributes["size"] * query * key
            return held(-most, most)
        case "softmax":
            held(inputs[0].low, inputs[0].high, LARGEST_SCORE)
            return Bounds(0, 255)
        case "mix":
            most = max(-inputs[1].low, inputs[1].high) * attributes["parts"]
            held(0, attributes["tokens"] * 255 * (most + 1))
            return held(-most, most)
    raise InputError(f"node {node.name!r} has the op {node.op!r}, which no network knows.")


def _with_padding(padding: list[list[int]], x: Bounds) -> Bounds:
    if not any(max(sides) > 0 for sides in padding):
        return x
    return Bounds(min(x.low, 0), max(x.high, 0))


def _clamped(attributes: dict) -> Bounds:
    return Bounds(attributes["low"], attributes["high"])


def _requantized(own: Arrays, x: Bounds) -> tuple[int, int]:
    """The extreme of all numbers that (5) goes through."""
    numbers = [np.int64(0)]
    if own["shift"].min() < 0 or own["shift"].max() > 30:
        return -(2**31), 2**31  # no shift of an int32
    half = (1 << own["shift"]) >> 1
    for end in x:
        difference = end - own["center"]
        product = difference * own["multiplier"]
        # Within int64: both factors are in int32.
        scaled = (product + half) >> own["shift"]
        numbers += [difference, product, product + half, scaled, scaled + own["offset"]]
    return min(int(n.min()) for n in numbers), max(int(n.max()) for n in numbers)


def _bytes(node: Node, x: Bounds) -> Bounds:
    if not 0 <= x.low <= x.high <= 255:
        raise InputError(f"node {node.name!r} takes numbers from {x.low} to {x.high}, not bytes.")
    return x


def _distance(attributes: dict, kernel: np.ndarray, x: Bounds) -> int:
    if kernel.min(initial=0) < 0 or kernel.max(initial=0) >= 2 ** attributes["bits"]:
        raise InputError(
            f"an adder kernel has numbers that do not fit in {attributes['bits']} bits."
        )
    filters = (kernel << attributes["shift"]).reshape(-1, kernel.shape[-1])
    if filters.max(initial=0) > 255:
        raise InputError(f"an adder kernel reaches {filters.max()} after its shift, not a byte.")
    value = attributes.get("padding_value", x.low)
    furthest = np.max([abs(filters - end) for end in (x.low, x.high, value)], axis=0)
    return int(furthest.sum(axis=0).max())
