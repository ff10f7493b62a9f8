"""The three products of layers as nodes: int8 weights, few-bit adder weights, packed signs."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from nnlab.deployment.builder import Builder
from nnlab.deployment.quantization import Scheme, quantized_filters
from nnlab.deployment.recognition import Layer
from nnlab.deployment.values import Value
from nnlab.ops.packed import pack_signs


class AdderOptions(NamedTuple):
    """How adder layers are quantised, see `nnlab.deployment.quantization`."""

    bits: int = 8
    groups: int = 4
    scheme: Scheme = "redistribution"


def layer_sums(build: Builder, x: Value, layer: Layer, adders: AdderOptions) -> Value:
    """The sums of a layer with its bias, and with the float network's mean if there are images."""
    if layer.weights == "kernel":
        y = _float(build, x, layer)
    elif layer.weights == "adder_kernel":
        y = _adder(build, x, layer, adders)
    else:
        y = _binary(build, x, layer)
    return build.corrected(y, layer.mean)


def _float(build: Builder, x: Value, layer: Layer) -> Value:
    zero = 0.0
    alike = x.scale.min() == x.scale.max() > 0 and not x.offset.any()
    small = x.node == "pixels" and build.bounds[x.node] == (-127, 127)
    if small and alike and dataclasses.replace(x, flat=False).is_affine:
        codes, step = build.pixels(x), x.scale[:1]
    elif layer.tokens:
        zero = layer.least  # and no quantile: few features reach far, and say much
        step = np.array([(layer.most - layer.least) / 255 or 1.0])
        codes = build.codes(x, float(step[0]), zero, 0, 255)
    else:
        low, high = (0, 255) if layer.least >= 0 else (-127, 127)
        step = np.array([max(abs(layer.least), abs(layer.most)) / high or 1.0])
        codes = build.codes(x, float(step[0]), 0.0, low, high)
    largest = abs(layer.kernel).max(axis=tuple(range(layer.kernel.ndim - 1)))
    weight_step = np.where(largest > 0, largest, 1) / 127
    kernel = np.int8(np.rint(layer.kernel / weight_step))
    op = "conv" if layer.windows else "dense"
    node = build.node(layer.name, op, [codes], layer.windows, kernel=kernel)
    bias = layer.bias
    if layer.tokens:
        bias = bias + zero * weight_step * kernel.astype(np.int64).sum(axis=0)
    return Value(node, step * weight_step, bias, layer.size)


def _adder(build: Builder, x: Value, layer: Layer, adders: AdderOptions) -> Value:
    op = "adder_conv" if layer.windows else "adder_dense"
    high = layer.high if layer.high > layer.low else max(layer.most, 0.0) or 1.0  # nearly all 0
    groups = quantized_filters(layer.kernel, layer.low, high, *adders)
    parts = []
    for number, group in enumerate(groups):
        codes = build.codes(x, group.step, group.low, 0, group.top)
        attributes = {**layer.windows, "shift": group.shift, "bits": adders.bits}
        if layer.windows:
            attributes["padding_value"] = min(round(-group.low / group.step), group.top)
        name = layer.name if len(groups) == 1 else f"{layer.name}/group_{number}"
        parts.append(build.node(name, op, [codes], attributes, kernel=group.codes))
    filters = np.concatenate([group.filters for group in groups])
    order = np.argsort(filters)
    steps = np.concatenate([np.full(len(g.filters), g.step) for g in groups])[order]
    bias = np.concatenate([group.bias for group in groups])[order] + layer.bias
    node = parts[0]
    if len(parts) > 1:
        node = build.node(layer.name, "concatenate", parts, {}, order=np.int32(order))
    return Value(node, steps, bias, layer.size)


def _binary(build: Builder, x: Value, layer: Layer) -> Value:
    words, kernel, windows = build.signs(x), layer.kernel, layer.windows
    if x.flat:  # a window as large as the image, so that its words stay as they are
        kernel = kernel.reshape(*x.size, -1, kernel.shape[-1])
        windows = {"strides": [1, 1], "padding": [[0, 0], [0, 0]]}
    packed = np.asarray(pack_signs(jnp.asarray(kernel, jnp.float32), axis=-2))
    op = "binary_conv" if windows else "binary_dense"
    attributes = {**windows, "channels": kernel.shape[-2]}
    node = build.node(layer.name, op, [words], attributes, kernel=packed)
    if x.flat:
        node = build.node(f"{layer.name}/flat", "flatten", [node], {})
    return Value(node, np.ones(1), layer.bias, layer.size)
