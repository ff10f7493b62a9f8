"""Every operation of an integer network in operators of ONNX.

Images are [batch, channels, height, width] there. Numbers rest as int8 or uint8 where these hold
them, and as int32 elsewhere, for which runtimes have the operators that int16 lacks. The shift of a
`requantize` is a division: floor(v / d) = (v - mod(v, d)) / d with the sign of d.
"""

import importlib
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nnlab.deployment.graph import Arrays, Node, window_attributes
from nnlab.errors import InputError, needs

_OPSET, _IR = 17, 8  # of 2022: what every runtime has by now
_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "double": 11}  # of TensorProto


class Held(NamedTuple):
    """A value in the graph: its name, its type, and whether it is an image or a vector."""

    name: str
    dtype_name: str
    image: bool


class OnnxGraph:
    """Collects operators and constants."""

    def __init__(self):
        with needs("onnx"):
            self.onnx: Any = importlib.import_module("onnx")
        self.nodes: list[Any] = []
        self.constants: dict[Any, Any] = {}
        self.values: dict[str, Held] = {}
        self.inputs: list[Any] = []

    def images(self, shape: tuple[int, ...]) -> None:
        """Begin with float32 images [batch, *shape]."""
        self.inputs = [self._value("images", ["batch", *shape])]
        image = len(shape) == 3
        name = self.op("Transpose", "images", perm=[0, 3, 1, 2]) if image else "images"
        self.values["images"] = Held(name, "float32", image)

    def add(self, node: Node, arrays: Arrays, value: Any) -> None:
        """Add a node; `value` has its shape and dtype.

        Raises:
            InputError: ONNX has no such operation.
        """
        inputs = [self.values[name] for name in node.inputs]
        own = {role: arrays[name] for role, name in node.arrays.items()}
        held = operation_of(node)(self, node.attributes, own, *inputs)
        narrow = np.dtype(value.dtype).name if node.op in _NARROWED else ""
        if narrow in ("int8", "uint8"):
            held = self.cast(held, narrow)
        self.values[node.name] = held

    def model(self, last: str, shape: tuple[int, ...]) -> bytes:
        """Return the file of the graph that ends in the value `last`, [batch, *shape]."""
        helper, held = self.onnx.helper, self.values[last]
        perm = [0, 2, 3, 1] if held.image else [0, 1]
        self.nodes.append(helper.make_node("Transpose", [held.name], ["logits"], perm=perm))
        outputs = [self._value("logits", ["batch", *shape])]
        used = {name for node in self.nodes for name in node.input}
        constants = [each for each in self.constants.values() if each.name in used]
        graph = helper.make_graph(self.nodes, "nnlab", self.inputs, outputs, constants)
        opset = [helper.make_opsetid("", _OPSET)]
        made = helper.make_model(graph, opset_imports=opset, ir_version=_IR, producer_name="nnlab")
        self.onnx.checker.check_model(made, full_check=True)
        return made.SerializeToString()

    def op(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator, and return the name of its value."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, array: Any, dtype: str = "int32") -> str:
        """Return the name of a constant; equal ones are one."""
        array = np.ascontiguousarray(np.asarray(array, dtype)).reshape(np.shape(array))
        key = array.dtype.name, array.shape, array.tobytes()
        if key not in self.constants:
            name = f"c{len(self.constants)}"
            self.constants[key] = self.onnx.numpy_helper.from_array(array, name)
        return self.constants[key].name

    def a_channel(self, array: np.ndarray, image: bool) -> str:
        """Return the name of int32 numbers a channel, or of one."""
        array = array.reshape(()) if array.size == 1 else array
        return self.constant(array[:, None, None] if image and array.ndim else array)

    def cast(self, x: Held, dtype: str) -> Held:
        if x.dtype_name == dtype:
            return x
        return Held(self.op("Cast", x.name, to=_TYPES[dtype]), dtype, x.image)

    def clip(self, name: str, attributes: dict[str, Any], dtype: str = "int32") -> str:
        ends = [self.constant(attributes[end], dtype) for end in ("low", "high")]
        return self.op("Clip", name, *ends)

    def _value(self, name: str, shape: Any) -> Any:
        return self.onnx.helper.make_tensor_value_info(name, _TYPES["float32"], shape)


def _quantize(graph: OnnxGraph, a: Any, own: Arrays, x: Held) -> Held:
    scaled = graph.op("Mul", graph.cast(x, "float32").name, graph.constant(a["scale"], "float32"))
    zero = graph.constant(0, "float32")
    number = graph.op("Where", graph.op("IsNaN", scaled), zero, graph.op("Round", scaled))
    clipped = Held(graph.clip(number, a, "float32"), "float32", x.image)
    return graph.cast(clipped, "int32")


def _requantize(graph: OnnxGraph, a: Any, own: Arrays, x: Held) -> Held:
    divisor = np.int32(1) << own["shift"].astype(np.int32)
    steps = {**own, "divisor": divisor, "half": divisor >> 1}
    c = {role: graph.a_channel(array, x.image) for role, array in steps.items()}
    v = graph.op("Sub", graph.cast(x, "int32").name, c["center"])
    v = graph.op("Add", graph.op("Mul", v, c["multiplier"]), c["half"])
    rest = graph.op("Mod", v, c["divisor"])
    v = graph.op("Div", graph.op("Sub", v, rest), c["divisor"])
    return Held(graph.clip(graph.op("Add", v, c["offset"]), a), "int32", x.image)


def _add(graph: OnnxGraph, a: Any, own: Arrays, x: Held, y: Held) -> Held:
    total = graph.op("Add", graph.cast(x, "int32").name, graph.cast(y, "int32").name)
    return Held(graph.clip(total, a), "int32", x.image)


def _table(graph: OnnxGraph, a: Any, own: Arrays, x: Held) -> Held:
    place = graph.op("Sub", graph.cast(x, "int32").name, graph.constant(a["low"]))
    return Held(graph.op("Gather", graph.constant(own["values"]), place), "int32", x.image)


def _conv(graph: OnnxGraph, a: Any, own: Arrays, x: Held) -> Held:
    if x.dtype_name not in ("int8", "uint8"):
        raise InputError("a convolution takes numbers of more than 8 bits, which ONNX has none of.")
    kernel = own["kernel"].transpose(3, 2, 0, 1)
    weights = graph.constant(kernel, kernel.dtype.name)
    (top, bottom), (left, right) = a["padding"]
    options = {"strides": a["strides"], "pads": [top, left, bottom, right]}
    options["group"] = a.get("groups", 1)
    inputs = [x.name, weights]
    if x.dtype_name == "int8":  # runtimes know products of unsigned inputs alone
        x = graph.cast(x, "int32")
        shifted = graph.op("Add", x.name, graph.constant(128))
        inputs[0] = graph.cast(Held(shifted, "int32", True), "uint8").name
        inputs.append(graph.constant(128, "uint8"))
    return Held(graph.op("ConvInteger", *inputs, **options), "int32", True)


def _dense(graph: OnnxGraph, a: Any, own: Arrays, x: Held) -> Held:
    name = graph.op("Transpose", x.name, perm=[0, 2, 3, 1]) if x.image else x.name
    kernel = own["kernel"]
    weights = graph.constant(kernel, kernel.dtype.name)
    if x.dtype_name == "uint8":
        y = graph.op("MatMulInteger", name, weights)
    else:
        inputs = graph.cast(x._replace(name=name), "int32").name
        wide = graph.cast(Held(weights, kernel.dtype.name, False), "int32").name
        y = graph.op("MatMul", inputs, wide)
    y = graph.op("Transpose", y, perm=[0, 3, 1, 2]) if x.image else y
    return Held(y, "int32", x.image)


def _pack_signs(graph: OnnxGraph, a: Any, own: Arrays, x: Held) -> Held:
    sign, threshold = (graph.a_channel(own[role], x.image) for role in ("sign", "threshold"))
    product = graph.op("Mul", graph.cast(x, "int32").name, sign)
    positive = graph.op("GreaterOrEqual", product, threshold)
    signs = graph.op("Where", positive, graph.constant(1, "int8"), graph.constant(-1, "int8"))
    return Held(signs, "int8", x.image)


def _signs(own: Arrays, channels: int) -> Arrays:
    """The kernel of packed signs as int8 -1 and +1."""
    words = np.moveaxis(own["kernel"], -2, -1)
    octets = np.ascontiguousarray(words).astype("<u4").view(np.uint8)
    bits = np.unpackbits(octets, axis=-1, bitorder="little")[..., :channels]
    return {"kernel": np.moveaxis(2 * bits.astype(np.int8) - 1, -1, -2)}


def _binary(product: Callable[..., Held]) -> Callable[..., Held]:
    def write(graph: OnnxGraph, a: Any, own: Arrays, x: Held) -> Held:
        return product(graph, a, _signs(own, a["channels"]), x)

    return write


def _concatenate(graph: OnnxGraph, a: Any, own: Arrays, *values: Held) -> Held:
    dtype = values[0].dtype_name if len({x.dtype_name for x in values}) == 1 else "int32"
    names = [graph.cast(x, dtype).name for x in values]
    joined = graph.op("Concat", *names, axis=1) if len(names) > 1 else names[0]
    order = graph.constant(own["order"])
    return Held(graph.op("Gather", joined, order, axis=1), dtype, values[0].image)


def _padded(graph: OnnxGraph, x: Held, padding: Any, channels: Any = (0, 0)) -> Held:
    """Zeros around height and width, or a part of them where a number is negative."""
    (top, bottom), (left, right) = padding
    pads = [0, channels[0], top, left, 0, channels[1], bottom, right]
    if not any(pads):
        return x
    wide = graph.cast(x, "int32")
    return wide._replace(name=graph.op("Pad", wide.name, graph.constant(pads, "int64")))


def _pad(graph: OnnxGraph, a: Any, own: Arrays, x: Held) -> Held:
    if any(between := a.get("between", [0, 0])):
        x = graph.cast(x, "int32")
        for zeros in reversed(between):  # along the last axis, which then is the one before
            name = graph.op("Unsqueeze", x.name, graph.constant([4], "int64"))
            name = graph.op("Pad", name, graph.constant([0] * 9 + [zeros], "int64"))
            name = graph.op("Reshape", name, graph.constant([0, 0, 0, -1], "int64"))
            name = graph.op("Pad", name, graph.constant([0] * 7 + [-zeros], "int64"))
            x = x._replace(name=graph.op("Transpose", name, perm=[0, 1, 3, 2]))
    return _padded(graph, x, a["padding"][:2], a["padding"][2])


def _max_pool(graph: OnnxGraph, a: Any, own: Arrays, x: Held) -> Held:
    window, strides, padding = window_attributes(a)
    x = _padded(graph, x, [[min(n, 0) for n in sides] for sides in padding])
    (top, bottom), (left, right) = ([max(n, 0) for n in sides] for sides in padding)
    narrow = x if x.dtype_name in ("int8", "uint8") else graph.cast(x, "double")  # exact for int32
    options = {"kernel_shape": window, "strides": strides, "pads": [top, left, bottom, right]}
    largest = narrow._replace(name=graph.op("MaxPool", narrow.name, **options))
    return graph.cast(largest, x.dtype_name)


def _sum_pool(graph: OnnxGraph, a: Any, own: Arrays, x: Held) -> Held:
    window, strides, padding = window_attributes(a)
    x = graph.cast(_padded(graph, x, padding), "int32")
    total = ""
    for taps in itertools.product(*map(range, window)):
        # All windows' pixels at one tap: they end before those of the last tap begin.
        ends = [tap - size + 1 or 2**31 - 1 for tap, size in zip(taps, window, strict=True)]
        limits = [graph.constant(numbers, "int64") for numbers in (taps, ends, [2, 3], strides)]
        part = graph.op("Slice", x.name, *limits)
        total = graph.op("Add", total, part) if total else part
    return Held(total, "int32", True)


def _sum(graph: OnnxGraph, a: Any, own: Arrays, x: Held) -> Held:
    axes = graph.constant([2, 3], "int64")
    return Held(
        graph.op("ReduceSum", graph.cast(x, "int32").name, axes, keepdims=0), "int32", False
    )


def _flatten(graph: OnnxGraph, a: Any, own: Arrays, x: Held) -> Held:
    if not x.image:
        return x
    last = graph.op("Transpose", x.name, perm=[0, 2, 3, 1])
    return Held(graph.op("Flatten", last, axis=1), x.dtype_name, False)


def _dequantize(graph: OnnxGraph, a: Any, own: Arrays, x: Held) -> Held:
    step = graph.constant(a["step"], "float32")
    return Held(graph.op("Mul", graph.cast(x, "float32").name, step), "float32", x.image)


def operation_of(node: Node) -> Callable[..., Held]:
    """What adds a node to a graph.

    Raises:
        InputError: ONNX has no such operation.
    """
    write = _OPERATIONS.get(node.op)
    if write is None:
        if node.op.startswith("adder"):
            raise InputError(
                f"node {node.name!r} is an {node.op}, and ONNX has no sums of distances; "
                "expected products and signs, or nnlab.deployment.write_c for adders."
            )
        raise InputError(
            f"node {node.name!r} has the op {node.op!r}, which is not written as ONNX."
        )
    return write


_OPERATIONS: dict[str, Callable[..., Held]] = {
    "quantize": _quantize,
    "requantize": _requantize,
    "add": _add,
    "table": _table,
    "conv": _conv,
    "dense": _dense,
    "pack_signs": _pack_signs,
    "binary_conv": _binary(_conv),
    "binary_dense": _binary(_dense),
    "concatenate": _concatenate,
    "pad": _pad,
    "max_pool": _max_pool,
    "or_pool": _max_pool,  # of signs in bytes
    "sum_pool": _sum_pool,
    "sum": _sum,
    "flatten": _flatten,
    "dequantize": _dequantize,
}
_NARROWED = ("table", "quantize", "requantize", "add", "pad", "concatenate", "max_pool")
