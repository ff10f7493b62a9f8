"""The nodes of an integer network as layers for `nnlab.costs.hardware`.

Operations are those of the ops' definitions in `nnlab.deployment.graph`, at the widths that they
need, and not of the program that runs on a processor (which, for instance, multiplies the integers
of a `conv` in float registers). Accumulators are those that the weights need, which may be less
than for any weights of as many bits.

================  =================================================================================
op                operations
================  =================================================================================
conv, dense       a multiplication and an addition a term, as wide as the wider operand can be, but
                  8 bits at least
adder_…           two additions a term, as wide as the wider operand can be
binary_…          an XNOR and an 8-bit addition a term
requantize        a 32-bit multiplication, three additions, a shift and two comparisons a number
table             none, but for the look-up
add               a 32-bit addition and two comparisons
sum, sum_pool     a 32-bit addition a number but the first
scores, mix       an 8-bit multiplication and an addition a term; of mix three 32-bit additions and
                  multiplications a number and a division
softmax           a score: two comparisons, three 32-bit multiplications, four additions, two shifts
                  and a division
layer_norm        a number: three 32-bit multiplications, six additions and three shifts; a token:
                  a division, and fifteen multiplications and comparisons for the root
pools, signs      a comparison each, or a bit operation where they are words
quantize          a float multiplication, a rounding and two comparisons
dequantize        a float multiplication
================  =================================================================================
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from nnlab.costs.counting import Counts
from nnlab.costs.hardware import (
    Kind,
    Layer,
    Numbers,
    bits_holding,
)
from nnlab.deployment.bounds import WORDS, Bounds, accumulator_bounds
from nnlab.deployment.graph import IntegerNetwork, Node
from nnlab.deployment.network import run_nodes

_KINDS: dict[str, Kind] = {
    "conv": "product",
    "dense": "product",
    "adder_conv": "adder",
    "adder_dense": "adder",
    "binary_conv": "binary",
    "binary_dense": "binary",
}


_SUMS = ("sum", "sum_pool")


def network_layers(
    network: IntegerNetwork, image_shape: Sequence[int], dtype: DTypeLike = jnp.float32
) -> tuple[Layer, ...]:
    """The nodes of `network` as layers, for one image [height, width, channels] of `dtype`.

    Raises:
        InputError: the network is none (`nnlab.deployment.accumulator_bounds`).
    """
    bounds = accumulator_bounds(network)
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.dtype(dtype))
    values = {"images": images} | jax.eval_shape(run_nodes(network), images)
    layers = []
    for node in network.nodes:
        inputs, y = [values[name] for name in node.inputs], values[node.name]
        arrays = {role: network.arrays[name] for role, name in node.arrays.items()}
        kind = _KINDS.get(node.op)
        width = max(_width(bounds.get(name, WORDS)) for name in node.inputs)
        if kind == "adder":
            furthest = int(arrays["kernel"].max()) << node.attributes["shift"]
            width = max(width, furthest.bit_length())
        layers.append(
            Layer(
                name=node.name,
                op=node.op,
                operations=_operations(node, width, _terms(node, arrays), inputs, y),
                weights=tuple(_stored(node, role, array) for role, array in arrays.items()),
                inputs=tuple(map(_numbers, inputs)),
                outputs=(_numbers(y),),
                kind=kind,
                terms=_terms(node, arrays),
                accumulator=bits_holding(*bounds[node.name]) if kind or node.op in _SUMS else None,
            )
        )
    return tuple(layers)


def _width(bounds: Bounds) -> int:
    """Bits of an operand: of unsigned integers if none is negative."""
    return bounds.high.bit_length() if bounds.low >= 0 else bits_holding(*bounds)


def _terms(node: Node, arrays: dict[str, np.ndarray]) -> int:
    """Return the number of terms of one sum with weights, 0 where there is none."""
    if node.op not in _KINDS:
        return 0
    *taps, inputs, _ = arrays["kernel"].shape
    return math.prod(taps) * node.attributes.get("channels", inputs)


def _operations(node: Node, width: int, terms: int, inputs: list[Any], y: Any) -> Counts:
    found: dict[str, dict[str, int]] = {kind: {} for kind in Counts._fields}

    def each(number: int, dtype: str, **kinds: int) -> None:
        for kind, times in kinds.items():
            found[kind][dtype] = number * times

    match node.op:
        case "conv" | "dense":
            each(y.size * terms, f"int{max(width, 8)}", multiplications=1, additions=1)
        case "adder_conv" | "adder_dense":
            each(y.size * terms, f"int{width}", additions=2)
        case "binary_conv" | "binary_dense":
            each(y.size * terms, "bool", bit_operations=1)
            each(y.size * terms, "int8", additions=1)
        case "requantize":
            each(y.size, "int32", multiplications=1, additions=3, bit_operations=1, comparisons=2)
        case "add":
            each(y.size, "int32", additions=1, comparisons=2)
        case "sum":
            each(inputs[0].size - y.size, "int32", additions=1)
        case "sum_pool":
            additions = math.prod(node.attributes["window"]) - 1
            each(y.size, "int32", additions=additions)
        case "scores":
            size = y.size * node.attributes["size"]
            each(size, "int8", multiplications=1, additions=1)
        case "mix":
            size = inputs[0].size * (y.shape[-1] // node.attributes["heads"])
            each(size, "int8", multiplications=1, additions=1)
            each(y.size, "int32", multiplications=3, additions=3, other=1)
        case "softmax":
            kinds = dict(comparisons=2, multiplications=3, additions=4, bit_operations=2)
            each(y.size, "int32", **kinds, other=1)
        case "layer_norm":
            tokens = y.size // y.shape[-1]
            each(3 * y.size + 15 * tokens, "int32", multiplications=1)
            each(y.size, "int32", additions=6, bit_operations=3)
            each(tokens, "int32", other=1, comparisons=15)
        case "max_pool":
            each(y.size, "int32", comparisons=math.prod(node.attributes["window"]) - 1)
        case "or_pool":
            each(32 * y.size, "bool", bit_operations=math.prod(node.attributes["window"]) - 1)
        case "pack_signs":
            each(inputs[0].size, "int32", comparisons=1)
        case "quantize":
            each(y.size, "float32", multiplications=1, comparisons=2, other=1)
        case "dequantize":
            each(y.size, "float32", multiplications=1)
    return Counts(**found)


def _stored(node: Node, role: str, array: np.ndarray) -> Numbers:
    if role == "kernel" and node.op.startswith("binary"):
        size = math.prod(array.shape[:-2]) * node.attributes["channels"] * array.shape[-1]
        return Numbers(size, size)
    if role == "kernel" and "bits" in node.attributes:
        return Numbers(array.size, array.size * node.attributes["bits"])
    return _numbers(array)


def _numbers(array: Any) -> Numbers:
    return Numbers(array.size, array.size * 8 * jnp.dtype(array.dtype).itemsize)
