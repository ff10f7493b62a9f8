r"""From layers of real numbers to nodes of integers.

A value (`nnlab.deployment.values`) is made into integers when something says which it needs of it:
one `requantize` turns sums of integers into codes, or one `pack_signs` into signs, since with a
hard tanh around 0

.. math::
    \mathrm{sgn}\,y = +1 \iff n \ge \lceil -b / a \rceil \ (a > 0), \qquad
    -n \ge \lceil b / a \rceil \ (a < 0).                                               (2)

Rounded weights shift the mean of a sum of hundreds of distances, always to the same side, while
its spread over positions is small. So, layer by layer, the means over example images

.. math:: b \leftarrow b + \overline{y_\mathrm{float}} - \overline{a n + b}               (3)

are made those of the float network, which costs nothing, as b is a number a channel that is folded
anyway.

Values that are added up or concatenated share one step, a power of two: the carrier. What is cut,
padded or averaged by itself has a step of its own, by the largest number on record.

References:
    Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV
    2019, https://arxiv.org/abs/1906.04721, for (3).
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from nnlab.deployment.bounds import INPUTS, WORDS, Bounds, node_bounds
from nnlab.deployment.fixed_point import fixed_point
from nnlab.deployment.graph import Arrays, IntegerNetwork, Node
from nnlab.deployment.network import node_function
from nnlab.deployment.values import Pair, Value, power_of_two
from nnlab.errors import InputError

INT16 = -(2**15), 2**15 - 1
TABLE = 2**9  # codes of a function on either side of 0
TOKENS_TABLE = 2**11  # the same of tokens, which reach further beyond what most of them are
_LOGITS = 2**20  # largest code of a logit


class Builder:
    """Collects nodes and arrays.

    Args:
        images: for the correction of means (3), by the names of a network's inputs, or None for
            no correction.
        carrier: step of values that are added up or concatenated.
    """

    def __init__(self, images: dict[str, ArrayLike] | None, carrier: float):
        self.carrier = carrier
        self.examples = None if images is None else {**images}
        self.given = frozenset(images or ())
        self.nodes: list[Node] = []
        self.arrays: Arrays = {}
        self.bounds: dict[str, Bounds] = dict.fromkeys(INPUTS, WORDS)
        self.made: dict[Any, str] = {}  # nodes that may be asked for again

    def network(self) -> IntegerNetwork:
        """Return what was collected, without what a table has taken the place of."""
        kept, needed = [], {self.nodes[-1].name}
        for node in reversed(self.nodes):
            if node.name in needed or not any(other.op == "table" for other in self.nodes):
                kept.append(node)
                needed |= set(node.inputs)
        names = {name for node in kept for name in node.arrays.values()}
        arrays = {name: array for name, array in self.arrays.items() if name in names}
        return IntegerNetwork(tuple(reversed(kept)), arrays)

    def images(self, most: float, largest: int, size: Pair) -> Value:
        """What the network gets, images of numbers up to `most`, in codes up to `largest`."""
        most = most or 1.0
        scale = float(np.float32(largest / most))
        attributes = {"scale": scale, "low": -largest, "high": largest}
        node = self.node("pixels", "quantize", ["images"], attributes)
        return Value(node, np.array([1 / scale]), np.zeros(1), size, most=most)

    def corrected(self, y: Value, mean: np.ndarray) -> Value:
        """A layer's sums with the mean of the float network's (3)."""
        if self.examples is None:
            return y
        codes = np.asarray(self.examples[y.node], np.float64)
        found = y.scale * codes.mean(axis=tuple(range(codes.ndim - 1))) + y.offset
        return dataclasses.replace(y, offset=y.offset + mean - found)

    def affine(self, x: Value, scale: np.ndarray, offset: np.ndarray) -> Value:
        """scale x + offset a channel."""
        x = self._summed(x)
        alike = scale.min() == scale.max() > 0 and offset.min() == offset.max()
        if not (x.is_affine or alike):
            x = self.settled(x)
        if alike:
            ends = {"low": scale[0] * x.low + offset[0], "high": scale[0] * x.high + offset[0]}
        else:
            ends = {}
        moved = dict(scale=x.scale * scale, offset=x.offset * scale + offset)
        return dataclasses.replace(x, **moved, **{end: float(v) for end, v in ends.items()})

    def sum(self, x: Value, y: Value, name: str, own_step: bool = False) -> Value:
        """The sum on the carrier or a step of its own, taken when it is known how it is clipped."""
        carrier = power_of_two(x.most + y.most) / 2**15 if own_step else self.carrier
        step, zero = np.array([carrier]), np.zeros(1)
        return Value("", step, zero, x.size, terms=(x, y), name=name)

    def mean_sum(self, x: Value, name: str) -> Value:
        """The sum over height and width."""
        step, codes = self._stepped(x)
        positions = math.prod(x.size)
        node = self.node(name, "sum", [codes], {"positions": positions})
        low, high = x.low * positions, x.high * positions
        return Value(node, np.array([step]), np.zeros(1), (1, 1), low, high)

    def window_sums(self, x: Value, attributes: dict[str, Any], name: str) -> Value:
        step, codes = self._stepped(x)
        node = self.node(name, "sum_pool", [codes], attributes)
        return Value(node, np.array([step]), np.zeros(1), x.size)

    def concatenated(self, values: Sequence[Value], channels: int, name: str) -> Value:
        """The channels of all values on the carrier."""
        codes = [self.codes(x, self.carrier, 0.0, *INT16) for x in values]
        node = self.node(name, "concatenate", codes, {}, order=np.arange(channels, dtype=np.int32))
        return Value(node, np.array([self.carrier]), np.zeros(1), values[0].size)

    def cut(self, x: Value, order: np.ndarray, name: str) -> Value:
        """Some of the channels."""
        x = self.settled(x)
        node = self.node(name, "concatenate", [x.node], {}, order=np.int32(order))
        return dataclasses.replace(x, node=node)

    def padded(self, x: Value, padding: list[list[int]], between: list[int], name: str) -> Value:
        """With zeros around height, width and channels, and between rows and columns."""
        x = self.settled(x)
        attributes: dict[str, Any] = {"padding": padding}
        attributes |= {"between": between} if any(between) else {}
        return dataclasses.replace(x, node=self.node(name, "pad", [x.node], attributes))

    def table(
        self,
        x: Value,
        function: Callable[[np.ndarray], np.ndarray],
        name: str,
        half: int = TABLE,
    ) -> Value:
        """`function` of the numbers on record, of 2 `half` codes.

        Raises:
            InputError: it is not finite at one of them.
        """
        most = x.most or 1.0
        low, high = (0, 2 * half - 1) if x.low >= 0 else (-half, half - 1)
        step = min(most, max(x.high, -x.low)) / high
        codes = self.codes(x, step, 0.0, low, high)
        first, last = self.bounds[codes]
        y = function(np.arange(first, last + 1) * step)
        if not np.isfinite(y).all():
            raise InputError("a function is not finite at a number on record, expected one that is")
        unit = power_of_two(abs(y).max()) / 2**15
        values = np.int16(np.clip(np.rint(y / unit), *INT16))
        node = self.node(name, "table", [codes], {"low": int(first)}, values=values)
        return Value(node, np.array([unit]), np.zeros(1), (1, 1) if x.flat else x.size)

    def logits(self, x: Value, most: float) -> None:
        """The end: logits of up to `most`, which the codes exceed 16 times, in float32."""
        step = 16.0 * power_of_two(most) / _LOGITS
        codes = self.codes(x, step, 0.0, -_LOGITS, _LOGITS)
        self.node("logits", "dequantize", [codes], {"step": step})

    def settled(self, x: Value) -> Value:
        """The same as codes of one step, with nothing left to be done."""
        x = self._summed(x)
        step, bounds = self._step(x), self.bounds[x.node]
        narrowest = self._clip(step, 0.0, x.low, x.high, *bounds)
        if step == x.scale[0] and narrowest == bounds and not x.offset.any():
            codes = self._reshaped(x.node, x, "max_pool")
        else:
            codes = self.codes(x, step, 0.0, *INT16)
        size = (1, 1) if x.flat else x.size
        return Value(codes, np.array([step]), np.zeros(1), size, most=x.most)

    def codes(self, x: Value, step: float, zero: float, low: int, high: int) -> str:
        """A node of round((y - zero) / step) within [low, high], of the real numbers y of x."""
        x = self._summed(x)
        low, high = self._clip(step, zero, x.low, x.high, low, high)
        constants = fixed_point(x.scale / step, (x.offset - zero) / step, self.bounds[x.node])
        key = x.node, step, zero, low, high, *(array.tobytes() for array in constants)
        limits, arrays = {"low": low, "high": high}, constants._asdict()
        name = self._again(key, f"{x.node}/codes", "requantize", x.node, limits, **arrays)
        return self._reshaped(name, x, "max_pool")

    def pixels(self, x: Value) -> str:
        """A node of the integers of x as they are, flattened if x is."""
        return self._reshaped(x.node, x, "max_pool")

    def signs(self, x: Value) -> str:
        """A node of the signs of the real numbers of x (2), packed, of images that are not flat."""
        x = self._summed(x)
        scale, offset = np.broadcast_arrays(x.scale, x.offset)
        zero = np.divide(-offset, scale, out=np.zeros_like(scale), where=scale != 0)
        sign = np.where(scale < 0, -1, 1)
        always = np.where((offset >= 0) | (x.low >= 0), -(2**31), 2**31 - 1)
        threshold = np.where((scale == 0) | (x.low >= 0), always, np.ceil(sign * zero))
        threshold = np.clip(threshold, -(2**31), 2**31 - 1)
        arrays = {"sign": np.int8(sign), "threshold": np.int32(threshold)}
        key = x.node, *(array.tobytes() for array in arrays.values())
        name = self._again(key, f"{x.node}/signs", "pack_signs", x.node, {}, **arrays)
        return self._reshaped(name, dataclasses.replace(x, flat=False), "or_pool")

    def node(
        self, name: str, op: str, inputs: list[str], attributes: dict[str, Any], **arrays
    ) -> str:
        names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(1)))
        name = next(name for name in names if name not in self.bounds)
        named = {role: f"{name}.{role}" for role in arrays}
        self.arrays.update((named[role], array) for role, array in arrays.items())
        node = Node(name, op, tuple(inputs), attributes, named)
        self.bounds[name] = node_bounds(node, self.arrays, [self.bounds[x] for x in inputs])
        self.nodes.append(node)
        if self.examples is not None:
            given = [self.examples[x] for x in inputs]
            self.examples[name] = node_function(node, self.arrays)(*given)
        return name

    def forget_but(self, values: Iterable[Value]) -> None:
        """Drop the examples of all nodes that none of `values` needs."""
        if self.examples is None:
            return
        wanted = set(self.given)
        values = list(values)
        for value in values:
            wanted.add(value.node)
            values.extend(value.terms or ())  # which this loop then comes to
        for key, name in self.made.items():  # in order: a node is made after what it is made of
            if key[0] in wanted:
                wanted.add(name)
        self.made = {key: name for key, name in self.made.items() if name in wanted}
        self.examples = {name: x for name, x in self.examples.items() if name in wanted}

    def _summed(self, x: Value) -> Value:
        """The value with its node, if it is a sum that was still to be taken."""
        if x.terms is None:
            return x
        step = float(x.scale[0])
        inputs = [self.codes(term, step, 0.0, *INT16) for term in x.terms]
        low, high = self._clip(step, 0.0, x.low, x.high, *INT16)
        key = inputs[0], inputs[1], low, high
        if key not in self.made:
            self.made[key] = self.node(x.name, "add", inputs, {"low": low, "high": high})
        return dataclasses.replace(x, node=self.made[key], terms=None)

    def _stepped(self, x: Value) -> tuple[float, str]:
        """A step for x, and a node of its codes."""
        x = self._summed(x)
        step = self._step(x)
        return step, self.codes(x, step, 0.0, *INT16)

    def _step(self, x: Value) -> float:
        """The step of x if it has one and 16 bits hold it, or one by its largest number."""
        low, high = self.bounds[x.node]
        alike = x.scale.min() == x.scale.max() > 0 and not x.offset.any()
        if alike and INT16[0] <= low and high <= INT16[1]:
            return float(x.scale[0])
        return power_of_two(x.most) / 2**15

    def _reshaped(self, name: str, x: Value, pool: str) -> str:
        if x.pool is not None:
            window = x.pool.attributes(x.size)
            name = self._again((name, pool, str(window)), f"{name}/largest", pool, name, window)
        if x.flat:
            name = self._again((name, "flatten"), f"{name}/flat", "flatten", name, {})
        return name

    def _clip(
        self, step: float, zero: float, low: float, high: float, least: int, most: int
    ) -> tuple[int, int]:
        """[least, most], narrowed to the integers of real numbers from low to high."""
        low, high = np.clip([(low - zero) / step, (high - zero) / step], least, most)
        return round(low), round(high)

    def _again(self, key: Any, name: str, op: str, x: str, attributes: Any, **arrays) -> str:
        if key not in self.made:
            taken = sum(node.name.startswith(name) for node in self.nodes)
            name = f"{name}_{taken}" if taken else name
            self.made[key] = self.node(name, op, [x], attributes, **arrays)
        return self.made[key]
