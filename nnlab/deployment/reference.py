"""An integer network evaluated by brute force in NumPy's int64: the definition of every operation.

Slow, and written from the table of `nnlab.deployment.graph` alone: no kernel, no JAX, no bound
on sums. What `run` gives must be equal to it, to the bit.
"""

from typing import Any

import numpy as np

from nnlab.deployment import reference_tokens as tokens
from nnlab.deployment.graph import IntegerNetwork, Node, window_attributes
from nnlab.deployment.texts import inputs_of


def reference(network: IntegerNetwork, images: Any) -> dict[str, np.ndarray]:
    """The values of all nodes by name, int64, packed words too; what `dequantize` gives, float32.

    Args:
        network: of the operations of `nnlab.deployment.graph`.
        images: [batch, height, width, channels], float32 or uint8; or texts, integers [batch, time]
            or `Tokens`.
    """
    given = {name: np.asarray(array) for name, array in inputs_of(images).items()}
    symbols = given["images"]
    whole = {"lengths": np.full(len(symbols), symbols.shape[1]), "types": np.zeros_like(symbols)}
    values = whole | given
    for node in network.nodes:
        inputs = [values[name] for name in node.inputs]
        own = {role: network.arrays[name] for role, name in node.arrays.items()}
        values[node.name] = _value(node, own, inputs)
    return {name: value for name, value in values.items() if name not in whole | given}


def _value(node: Node, own: dict[str, np.ndarray], inputs: list[np.ndarray]) -> np.ndarray:
    a, x = node.attributes, inputs[0]
    integers = {role: array.astype(np.int64) for role, array in own.items()}
    match node.op:
        case "quantize":
            scaled = np.nan_to_num(np.rint(x.astype(np.float32) * np.float32(a["scale"])))
            return np.clip(scaled, a["low"], a["high"]).astype(np.int64)
        case "requantize":
            product = (x - integers["center"]) * integers["multiplier"]
            half = 2 ** integers["shift"] // 2
            y = (product + half) // 2 ** integers["shift"] + integers["offset"]
            return np.clip(y, a["low"], a["high"])
        case "add":
            return np.clip(x + inputs[1], a["low"], a["high"])
        case "table":
            return integers["values"][x - a["low"]]
        case "conv":
            groups = a.get("groups", 1)
            filters = np.split(integers["kernel"], groups, axis=-1)
            pairs = zip(np.split(x, groups, axis=-1), filters, strict=True)
            sums = [_over_windows(a, x, w, lambda x, w, inside: x * w) for x, w in pairs]
            return np.concatenate(sums, axis=-1)
        case "dense":
            return x @ integers["kernel"]
        case "adder_conv":
            kernel = integers["kernel"] * 2 ** a["shift"]
            return _over_windows(
                a, x, kernel, lambda x, w, _: -abs(x - w), padding=a["padding_value"]
            )
        case "adder_dense":
            return -abs(x[..., None] - integers["kernel"] * 2 ** a["shift"]).sum(axis=-2)
        case "pack_signs":
            return _words(x * integers["sign"] >= integers["threshold"])
        case "binary_conv":
            signs, kernel = _signs(x, a["channels"]), _signs(integers["kernel"], a["channels"], 2)
            return _over_windows(a, signs, kernel, lambda x, w, inside: inside * x * w)
        case "binary_dense":
            return _signs(x, a["channels"]) @ _signs(integers["kernel"], a["channels"], 0)
        case "concatenate":
            return np.concatenate(inputs, axis=-1)[..., integers["order"]]
        case "pad":
            down, across = (n + 1 for n in a.get("between", [0, 0]))
            n, height, width, channels = x.shape
            shape = n, (height - 1) * down + 1, (width - 1) * across + 1, channels
            spread = np.zeros(shape, x.dtype)
            spread[:, ::down, ::across] = x
            return np.pad(spread, [(0, 0), *a["padding"]])
        case "max_pool":
            return _pooled(a, x, np.maximum, np.iinfo(np.int64).min)
        case "or_pool":
            return _pooled(a, x, np.bitwise_or, 0)
        case "sum_pool":
            return _pooled(a, x, np.add, 0)
        case "sum":
            return x.sum(axis=(1, 2))
        case "flatten":
            return x.reshape(len(x), -1)
        case "embed":
            return integers["values"][np.clip(x, 0, len(integers["values"]) - 1)]
        case "rows":
            return np.repeat(integers["values"][None, : x.shape[1]], len(x), axis=0)
        case "prepend":
            return np.concatenate([np.repeat(integers["values"][None], len(x), axis=0), x], axis=1)
        case "take":
            return x[:, a["first"] : a["last"]]
        case "tokens":
            return x.reshape(len(x), -1, x.shape[-1])
        case "layer_norm":
            return tokens.layer_norm(x, integers["epsilon"])
        case "scores":
            return tokens.scores(a["heads"], x, inputs[1])
        case "softmax":
            return tokens.softmax(x, *inputs[1:])
        case "mix":
            return tokens.mix(a["heads"], a["parts"], x, inputs[1])
        case "dequantize":
            return x.astype(np.float32) * np.float32(a["step"])
    raise ValueError(f"no operation {node.op!r}.")


def _over_windows(a, x, kernel, term, padding=0):
    """Sums of `term(pixel, weight, whether the pixel is in the image)` over windows."""
    pads = ((0, 0), *a["padding"], (0, 0))
    inside = np.pad(np.ones_like(x), pads)
    x = np.pad(x, pads, constant_values=padding)
    (kh, kw), (sh, sw) = kernel.shape[:2], a["strides"]
    rows, columns = (x.shape[1] - kh) // sh + 1, (x.shape[2] - kw) // sw + 1
    y = np.zeros((len(x), rows, columns, kernel.shape[3]), np.int64)
    for i in range(rows):
        for j in range(columns):
            at = np.s_[:, i * sh : i * sh + kh, j * sw : j * sw + kw, :, None]
            y[:, i, j] = term(x[at], kernel, inside[at]).sum(axis=(1, 2, 3))
    return y


def _pooled(a, x, operation, padded):
    """`operation` over all pixels of each window."""
    window, strides, padding = window_attributes(a)
    for axis, (low, high) in enumerate(padding, 1):
        kept = np.arange(max(-low, 0), x.shape[axis] - max(-high, 0))
        sides = [(0, 0)] * 4
        sides[axis] = max(low, 0), max(high, 0)
        x = np.pad(x.take(kept, axis), sides, constant_values=padded)
    (kh, kw), (sh, sw) = window, strides
    rows, columns = (x.shape[1] - kh) // sh + 1, (x.shape[2] - kw) // sw + 1
    y = np.zeros((len(x), rows, columns, x.shape[3]), np.int64)
    for i in range(rows):
        for j in range(columns):
            pixels = x[:, i * sh : i * sh + kh, j * sw : j * sw + kw]
            y[:, i, j] = operation.reduce(operation.reduce(pixels, axis=1), axis=1)
    return y


def _words(bits: np.ndarray) -> np.ndarray:
    words = -(-bits.shape[-1] // 32)
    bits = np.pad(bits, [(0, 0)] * (bits.ndim - 1) + [(0, 32 * words - bits.shape[-1])])
    return (bits.reshape(*bits.shape[:-1], words, 32) * 2 ** np.arange(32)).sum(axis=-1)


def _signs(words: np.ndarray, channels: int, axis: int = -1) -> np.ndarray:
    """The signs, -1 and +1, that `words` holds along `axis`."""
    words = np.moveaxis(words, axis, -1)
    bits = (words[..., None] >> np.arange(32)) % 2
    signs = 2 * bits.reshape(*words.shape[:-1], -1)[..., :channels] - 1
    return np.moveaxis(signs, -1, axis)
