r"""From layers of real numbers to nodes of integers.

A `Value` is a node whose integers n stand for the real numbers

.. math:: y = \mathrm{clip}(a n + b, l, h)                                              (1)

a channel. What is linear (a scale, a bias, BatchNorm) changes a and b and the activation l and h:
no node is made until another layer says which integers it needs of them. Then one `requantize`
turns sums of integers into codes, or one `pack_signs` into signs, since with a hard tanh around 0

.. math::
    \mathrm{sgn}\,y = +1 \iff n \ge \lceil -b / a \rceil \ (a > 0), \qquad
    -n \ge \lceil b / a \rceil \ (a < 0).                                               (2)

Rounded weights shift the mean of a sum of hundreds of distances, always to the same side, while
its spread over positions is small. So, layer by layer, the means over example images

.. math:: b \leftarrow b + \overline{y_\mathrm{float}} - \overline{a n + b}               (3)

are made those of the float network, which costs nothing, as b is a number a channel that is folded
anyway.

Values that are added up share one step, a power of two: the carrier.

References:
    Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV
    2019, https://arxiv.org/abs/1906.04721, for (3).
"""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnlab.deployment.bounds import WORDS, Bounds, node_bounds
from nnlab.deployment.calibration import Layer, Norm
from nnlab.deployment.fixed_point import fixed_point
from nnlab.deployment.graph import Arrays, IntegerNetwork, Node
from nnlab.deployment.network import node_function
from nnlab.deployment.quantization import Scheme, quantized_filters
from nnlab.ops.packed import pack_signs

_INT16 = -(2**15), 2**15 - 1
_LOGITS = 2**20  # largest code of a logit


@dataclasses.dataclass(frozen=True)
class Value:
    """Real numbers (1) of the integers of `node`.

    Attributes:
        node: its name.
        scale, offset: a and b, float64 [channels] or [1].
        size: height and width.
        low, high: l and h.
        window: of a maximum that is still to be taken.
        flat: whether height, width and channels are still to become one axis.
    """

    node: str
    scale: np.ndarray
    offset: np.ndarray
    size: tuple[int, int]
    low: float = -math.inf
    high: float = math.inf
    window: tuple[int, int] | None = None
    flat: bool = False

    def normalized(self, norm: Norm) -> "Value":
        scale, offset = self.scale * norm.scale, self.offset * norm.scale + norm.offset
        return dataclasses.replace(self, scale=scale, offset=offset)

    def clipped(self, low: float, high: float) -> "Value":
        return dataclasses.replace(self, low=low, high=high)

    def pooled(self, height: int, width: int) -> "Value":
        size = self.size[0] // height, self.size[1] // width
        return dataclasses.replace(self, window=(height, width), size=size)

    def flattened(self) -> "Value":
        return dataclasses.replace(self, flat=True)


class Builder:
    """Collects nodes and arrays.

    Args:
        images: for the correction of means (3), or None for no correction.
        carrier: step of values that are added up.
        bits, groups, scheme: of `nnlab.deployment.quantization`, for adder layers.
    """

    def __init__(
        self, images: ArrayLike | None, carrier: float, bits: int, groups: int, scheme: Scheme
    ):
        self.carrier, self.bits, self.groups = carrier, bits, groups
        self.scheme: Scheme = scheme
        self.values = None if images is None else {"images": jnp.asarray(images)}
        self.nodes: list[Node] = []
        self.arrays: Arrays = {}
        self.bounds: dict[str, Bounds] = {"images": WORDS}
        self.made: dict[Any, str] = {}  # nodes that may be asked for again

    def network(self) -> IntegerNetwork:
        return IntegerNetwork(tuple(self.nodes), self.arrays)

    def images(self, layer: Layer, size: tuple[int, int]) -> Value:
        """What the network gets, in bytes for a float layer, else in 16 bits."""
        largest = 127 if layer.weights == "kernel" else _INT16[1]
        most = max(abs(layer.least), abs(layer.most)) or 1.0
        scale = float(np.float32(largest / most))
        attributes = {"scale": scale, "low": -largest, "high": largest}
        node = self._node("pixels", "quantize", ["images"], attributes)
        return Value(node, np.array([1 / scale]), np.zeros(1), size)

    def layer(self, x: Value, layer: Layer) -> Value:
        by_weights = {
            "kernel": self._float,
            "adder_kernel": self._adder,
            "binary_kernel": self._binary,
        }
        y = by_weights[layer.weights](x, layer)
        if self.values is None:
            return y
        codes = np.asarray(self.values[y.node], np.float64)
        mean = y.scale * codes.mean(axis=tuple(range(codes.ndim - 1))) + y.offset
        return dataclasses.replace(y, offset=y.offset + layer.mean - mean)  # (3)

    def add(self, x: Value, y: Value, name: str, low: float, high: float) -> Value:
        """The sum on the carrier, clipped to [low, high]."""
        inputs = [self._codes(value, self.carrier, 0.0, *_INT16) for value in (x, y)]
        least, most = self._clip(self.carrier, 0.0, low, high, *_INT16)
        node = self._node(name, "add", inputs, {"low": least, "high": most})
        return Value(node, np.array([self.carrier]), np.zeros(1), x.size, low, high)

    def mean(self, x: Value) -> Value:
        """Over height and width."""
        codes = self._codes(x, self.carrier, 0.0, *_INT16)
        positions = math.prod(x.size)
        node = self._node("mean", "sum", [codes], {"positions": positions})
        return Value(node, np.array([self.carrier / positions]), np.zeros(1), (1, 1), x.low, x.high)

    def logits(self, x: Value, most: float) -> None:
        """The end: logits of up to `most`, which the codes exceed 16 times, in float32."""
        step = 16.0 * power_of_two(most) / _LOGITS
        codes = self._codes(x, step, 0.0, -_LOGITS, _LOGITS)
        self._node("logits", "dequantize", [codes], {"step": step})

    def _float(self, x: Value, layer: Layer) -> Value:
        if x.node == "pixels":
            codes, step = x.node, x.scale
        else:
            low, high = (0, 255) if layer.least >= 0 else (-127, 127)
            step = np.array([max(abs(layer.least), abs(layer.most)) / high or 1.0])
            codes = self._codes(x, float(step[0]), 0.0, low, high)
        largest = abs(layer.kernel).max(axis=tuple(range(layer.kernel.ndim - 1)))
        weight_step = np.where(largest > 0, largest, 1) / 127
        kernel = np.int8(np.rint(layer.kernel / weight_step))
        op = "conv" if layer.windows else "dense"
        node = self._node(layer.name, op, [codes], layer.windows, kernel=kernel)
        return Value(node, step * weight_step, layer.bias, layer.size)

    def _adder(self, x: Value, layer: Layer) -> Value:
        op = "adder_conv" if layer.windows else "adder_dense"
        groups = quantized_filters(
            layer.kernel, layer.low, layer.high, self.bits, self.groups, self.scheme
        )
        parts = []
        for number, group in enumerate(groups):
            codes = self._codes(x, group.step, group.low, 0, group.top)
            attributes = {**layer.windows, "shift": group.shift, "bits": self.bits}
            if layer.windows:
                attributes["padding_value"] = min(round(-group.low / group.step), group.top)
            name = layer.name if len(groups) == 1 else f"{layer.name}/group_{number}"
            parts.append(self._node(name, op, [codes], attributes, kernel=group.codes))
        filters = np.concatenate([group.filters for group in groups])
        order = np.argsort(filters)
        steps = np.concatenate([np.full(len(g.filters), g.step) for g in groups])[order]
        bias = np.concatenate([group.bias for group in groups])[order] + layer.bias
        node = parts[0]
        if len(parts) > 1:
            node = self._node(layer.name, "concatenate", parts, {}, order=np.int32(order))
        return Value(node, steps, bias, layer.size)

    def _binary(self, x: Value, layer: Layer) -> Value:
        words, kernel, windows = self._signs(x), layer.kernel, layer.windows
        if x.flat:  # a window as large as the image, so that its words stay as they are
            kernel = kernel.reshape(*x.size, -1, kernel.shape[-1])
            windows = {"strides": [1, 1], "padding": [[0, 0], [0, 0]]}
        packed = np.asarray(pack_signs(jnp.asarray(kernel, jnp.float32), axis=-2))
        op = "binary_conv" if windows else "binary_dense"
        attributes = {**windows, "channels": kernel.shape[-2]}
        node = self._node(layer.name, op, [words], attributes, kernel=packed)
        if x.flat:
            node = self._node(f"{layer.name}/flat", "flatten", [node], {})
        return Value(node, np.ones(1), layer.bias, layer.size)

    def _codes(self, x: Value, step: float, zero: float, low: int, high: int) -> str:
        """A node of round((y - zero) / step) within [low, high], of the real numbers y of x."""
        low, high = self._clip(step, zero, x.low, x.high, low, high)
        constants = fixed_point(x.scale / step, (x.offset - zero) / step, self.bounds[x.node])
        key = x.node, step, zero, low, high, *(array.tobytes() for array in constants)
        limits, arrays = {"low": low, "high": high}, constants._asdict()
        name = self._again(key, f"{x.node}/codes", "requantize", x.node, limits, **arrays)
        return self._reshaped(name, x, "max_pool")

    def _signs(self, x: Value) -> str:
        """A node of the signs of the real numbers of x (2), packed."""
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

    def _reshaped(self, name: str, x: Value, pool: str) -> str:
        if x.window is not None:
            window = {"window": list(x.window)}
            name = self._again((name, pool), f"{name}/largest", pool, name, window)
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
            self.made[key] = self._node(name, op, [x], attributes, **arrays)
        return self.made[key]

    def _node(
        self, name: str, op: str, inputs: list[str], attributes: dict[str, Any], **arrays
    ) -> str:
        named = {role: f"{name}.{role}" for role in arrays}
        self.arrays.update((named[role], array) for role, array in arrays.items())
        node = Node(name, op, tuple(inputs), attributes, named)
        self.nodes.append(node)
        if self.values is not None:
            self.values[name] = node_function(node, self.arrays)(*(self.values[x] for x in inputs))
        self.bounds[name] = node_bounds(node, self.arrays, [self.bounds[x] for x in inputs])
        return name


def power_of_two(most: float) -> float:
    """The smallest that is at least `most`."""
    return 2.0 ** math.ceil(math.log2(most)) if most > 0 else 1.0
