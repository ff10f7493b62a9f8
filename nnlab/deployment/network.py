"""The function that an integer network is, in JAX."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nnlab.data.batches import check_some
from nnlab.deployment import tokens
from nnlab.deployment.bounds import FLOAT_EXACT, accumulator_bounds
from nnlab.deployment.graph import Arrays, IntegerNetwork, Node, window_attributes
from nnlab.deployment.texts import inputs_of
from nnlab.errors import InputError
from nnlab.ops.integer import adder_conv_uint8, adder_dense_uint8
from nnlab.ops.packed import binary_conv_packed, binary_dense_packed, pack_signs
from nnlab.ops.products import int8_conv
from nnlab.ops.windows import window_of


def run(network: IntegerNetwork) -> Callable[[Any], jax.Array]:
    """The function of `network`: pure, and to be jitted.

    Args:
        network: as read from a file or built by `nnlab.deployment.quantize`.

    Returns:
        A function of images [batch, height, width, channels], float32 or uint8 numbers, or of
        texts, integers [batch, time] or `nnlab.sequences.tokens.Tokens`, that gives the last node's
        value, for a whole network float32 logits [batch, classes]. It raises `InputError` where
        there are no images, a layer gets another number of channels, or texts are too long.

    Raises:
        InputError: a node is not as the table says, or could leave int32.
    """
    evaluate = run_nodes(network)
    return lambda images: evaluate(images)[network.nodes[-1].name]


def run_nodes(network: IntegerNetwork) -> Callable[[Any], dict[str, jax.Array]]:
    """As `run`, with the values of all nodes by name."""
    accumulator_bounds(network)
    steps = [(node, node_function(node, network.arrays)) for node in network.nodes]

    needed = {name for node in network.nodes for name in node.inputs}

    def evaluate(images: Any) -> dict[str, jax.Array]:
        given = inputs_of(images)
        check_some(given["images"])
        values = {name: jnp.asarray(array) for name, array in given.items()}
        _add_missing(values, needed)
        for node, step in steps:
            _check_channels(node, network.arrays, values[node.inputs[0]])
            values[node.name] = step(*(values[name] for name in node.inputs))
        return values

    return evaluate


def _add_missing(values: dict[str, jax.Array], needed: set[str]) -> None:
    """Lengths of whole texts and types of 0, where a network needs them and has not got them."""
    symbols = values["images"]
    if "lengths" in needed and "lengths" not in values:
        values["lengths"] = jnp.full(len(symbols), symbols.shape[1], jnp.int32)
    if "types" in needed and "types" not in values:
        values["types"] = jnp.zeros_like(symbols)


def _check_channels(node: Node, arrays: Arrays, x: jax.Array) -> None:
    if node.op in ("conv", "dense", "adder_conv", "adder_dense"):
        channels = arrays[node.arrays["kernel"]].shape[-2] * node.attributes.get("groups", 1)
        if x.shape[-1] != channels:  # which a convolution would take for groups
            raise InputError(f"{node.name} gets {x.shape[-1]} channels, expected {channels}.")


def resting_dtype(low: int, high: int) -> np.dtype:
    """The smallest of uint8, int8, int16, int32 that holds integers from `low` to `high`."""
    for dtype in (np.uint8, np.int8, np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    raise InputError(f"integers from {low} to {high} do not fit in int32.")


def node_function(node: Node, arrays: Arrays) -> Callable[..., jax.Array]:
    """One node's value as a function of those of its inputs."""
    own = {role: arrays[name] for role, name in node.arrays.items()}
    return functools.partial(_OPS[node.op], node.attributes, own)


def _clamped(attributes: dict[str, Any], x: jax.Array) -> jax.Array:
    low, high = attributes["low"], attributes["high"]
    return jnp.clip(x, low, high).astype(resting_dtype(low, high))


def _quantize(attributes, arrays, x):
    # The clamp is one of floats, so that whatever the image is, the conversion is defined.
    scaled = jnp.round(x.astype(jnp.float32) * jnp.float32(attributes["scale"]))
    return _clamped(attributes, jnp.nan_to_num(scaled))


def _by_channel(array: np.ndarray, x: jax.Array) -> jax.Array:
    """Give integers [channels] the type and the rank of `x` in int32, [..., channels]."""
    return lax.broadcast_to_rank(jnp.asarray(array, jnp.int32), x.ndim)


def _requantize(attributes, arrays, x):
    own = arrays | {"half": (1 << arrays["shift"]) >> 1}
    own = {role: _by_channel(array, x) for role, array in own.items()}
    product = (x.astype(jnp.int32) - own["center"]) * own["multiplier"]
    shift = jnp.broadcast_to(own["shift"], product.shape)
    scaled = lax.shift_right_arithmetic(product + own["half"], shift)
    return _clamped(attributes, scaled + own["offset"])  # (1)


def _add(attributes, arrays, x, y):
    return _clamped(attributes, x.astype(jnp.int32) + y.astype(jnp.int32))


def _table(attributes, arrays, x):
    return jnp.take(jnp.asarray(arrays["values"]), x.astype(jnp.int32) - attributes["low"], axis=0)


def _windows(attributes: dict[str, Any]) -> dict[str, Any]:
    padding = [tuple(pair) for pair in attributes["padding"]]
    return {"strides": tuple(attributes["strides"]), "padding": padding}


def _conv(attributes, arrays, x):
    """XLA has no fast convolution of integers on a CPU; float32 is exact up to 2^24, so channels
    are taken a few at a time. Elsewhere float convolutions may round, and integers are fast."""
    if "groups" in attributes:
        return _grouped_conv(attributes, arrays, x)
    options = _windows(attributes)
    kernel = arrays["kernel"]

    def in_floats(x):
        parts = _exact_parts(kernel, x.dtype)
        if parts is None:
            return in_integers(x)
        total: Any = 0
        for part in parts:
            channels, weights = x[..., part], jnp.asarray(kernel[:, :, part])
            channels, weights = channels.astype(jnp.float32), weights.astype(jnp.float32)
            total += int8_conv(channels, weights, **options).astype(jnp.int32)
        return total

    def in_integers(x):
        window = window_of(x.shape, kernel.shape, **options, kernel_dilation=1)
        x = jnp.pad(x.astype(jnp.int32), ((0, 0), *window.padding, (0, 0)))
        height, width = (
            (x.shape[1 + i] - kernel.shape[i]) // window.strides[i] + 1 for i in range(2)
        )
        total: Any = 0
        for i, j in np.ndindex(*kernel.shape[:2]):
            (sy, sx), (y, z) = window.strides, (i, j)
            pixels = x[:, y : y + sy * (height - 1) + 1 : sy, z : z + sx * (width - 1) + 1 : sx]
            total += jnp.einsum(
                "bhwi,io->bhwo", pixels, jnp.asarray(kernel[i, j]).astype(jnp.int32)
            )
        return total

    return lax.platform_dependent(x, cpu=in_floats, default=in_integers)


def _grouped_conv(attributes, arrays, x):
    """In float32 where no sum can leave its integers, else group by group."""
    kernel, groups = arrays["kernel"], attributes["groups"]
    parts = _exact_parts(kernel, x.dtype)
    if parts is None or len(parts) > 1:
        filters = np.split(kernel, groups, axis=-1)
        images = jnp.split(x, groups, axis=-1)
        one = {key: value for key, value in attributes.items() if key != "groups"}
        pairs = zip(filters, images, strict=True)
        return jnp.concatenate([_conv(one, {"kernel": k}, image) for k, image in pairs], axis=-1)
    options = _windows(attributes)
    return lax.conv_general_dilated(
        x.astype(jnp.float32),
        jnp.asarray(kernel, jnp.float32),
        options["strides"],
        options["padding"],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=lax.Precision.HIGHEST,
    ).astype(jnp.int32)


def _exact_parts(kernel: np.ndarray, dtype: Any) -> list[slice] | None:
    """Runs of channels over which no partial sum of products leaves the integers of float32, or
    None where that of a single channel could."""
    limits = np.iinfo(dtype)
    load = abs(kernel.astype(np.int64)).sum(axis=(0, 1)) * max(-limits.min, limits.max)
    if load.max() > FLOAT_EXACT:
        return None
    parts, start = [], 0
    for stop in range(1, len(load) + 1):
        if stop == len(load) or load[start : stop + 1].sum(axis=0).max() > FLOAT_EXACT:
            parts.append(slice(start, stop))
            start = stop
    return parts


def _dense(attributes, arrays, x):
    if x.ndim == 3:
        parts = _exact_parts(arrays["kernel"][None, None], x.dtype)
        return tokens.dense(arrays["kernel"], parts, x)
    return jnp.dot(x.astype(jnp.int32), jnp.asarray(arrays["kernel"]).astype(jnp.int32))


def _shifted(attributes: dict[str, Any], arrays: Arrays) -> jax.Array:
    return jnp.asarray(arrays["kernel"] << attributes["shift"], jnp.uint8)


def _adder_conv(attributes, arrays, x):
    value = attributes["padding_value"]
    kernel = _shifted(attributes, arrays)
    return adder_conv_uint8(x, kernel, **_windows(attributes), padding_value=value)


def _adder_dense(attributes, arrays, x):
    return adder_dense_uint8(x, _shifted(attributes, arrays))


def _pack_signs(attributes, arrays, x):
    sign, threshold = (_by_channel(arrays[role], x) for role in ("sign", "threshold"))
    positive = x.astype(jnp.int32) * sign >= threshold
    return pack_signs(jnp.where(positive, jnp.float32(1), jnp.float32(-1)))  # (2)


def _binary_conv(attributes, arrays, x):
    channels = attributes["channels"]
    kernel = jnp.asarray(arrays["kernel"])
    return binary_conv_packed(x, kernel, channels=channels, **_windows(attributes))


def _binary_dense(attributes, arrays, x):
    return binary_dense_packed(x, jnp.asarray(arrays["kernel"]), channels=attributes["channels"])


def _concatenate(attributes, arrays, *values):
    return jnp.take(jnp.concatenate(values, axis=-1), arrays["order"], axis=-1)


def _pool(operation: Callable[..., jax.Array], attributes, arrays, x):
    window, strides, padding = window_attributes(attributes)
    lowest = x.dtype.type(0 if operation is jnp.add else np.iinfo(x.dtype).min)
    (top, bottom), (left, right) = padding
    x = lax.pad(x, lowest, ((0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0)))
    ends = [
        (n - k) // s * s + 1 for n, k, s in zip(x.shape[1:3], window, strides, strict=True)
    ]  # of the first pixels of all windows
    (down, across), (height, width) = strides, ends
    taps = np.ndindex(*window)
    pixels = [x[:, i : i + height : down, j : j + width : across] for i, j in taps]
    return functools.reduce(operation, pixels)


def _sum_pool(attributes, arrays, x):
    return _pool(jnp.add, attributes, arrays, x.astype(jnp.int32))


def _pad(attributes, arrays, x):
    between = [*attributes.get("between", [0, 0]), 0]
    sides = [(*each, n) for each, n in zip(attributes["padding"], between, strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *sides])


def _sum(attributes, arrays, x):
    if x.shape[1] * x.shape[2] != attributes["positions"]:
        raise InputError(
            f"a network made for {attributes['positions']} positions before its classifier got "
            f"{x.shape[1]} by {x.shape[2]}."
        )
    return x.sum(axis=(1, 2), dtype=jnp.int32)


_OPS: dict[str, Callable[..., jax.Array]] = {
    "quantize": _quantize,
    "requantize": _requantize,
    "add": _add,
    "table": _table,
    "conv": _conv,
    "dense": _dense,
    "adder_conv": _adder_conv,
    "adder_dense": _adder_dense,
    "pack_signs": _pack_signs,
    "binary_conv": _binary_conv,
    "binary_dense": _binary_dense,
    "concatenate": _concatenate,
    "pad": _pad,
    "max_pool": functools.partial(_pool, jnp.maximum),
    "or_pool": functools.partial(_pool, jnp.bitwise_or),
    "sum_pool": _sum_pool,
    "sum": _sum,
    "embed": tokens.embed,
    "rows": tokens.rows,
    "prepend": tokens.prepend,
    "take": lambda attributes, arrays, x: x[:, attributes["first"] : attributes["last"]],
    "tokens": lambda attributes, arrays, x: lax.collapse(x, 1, 3),
    "layer_norm": tokens.layer_norm,
    "scores": tokens.scores,
    "softmax": tokens.softmax,
    "mix": tokens.mix,
    "flatten": lambda attributes, arrays, x: lax.collapse(x, 1),
    "dequantize": lambda attributes, arrays, x: (
        x.astype(jnp.float32) * jnp.float32(attributes["step"])
    ),
}
