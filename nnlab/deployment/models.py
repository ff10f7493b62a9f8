"""From a trained model to its network in integers, an architecture a function.

First convolution and classifier, where they are float, become int8 weights, one scale a filter, on
8-bit inputs, at any `bits`: the published networks keep both in full precision.
"""

from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nnlab.deployment.builder import Builder, Value, power_of_two
from nnlab.deployment.calibration import (
    EXAMPLES,
    QUANTILE,
    Layer,
    Norm,
    recorded,
)
from nnlab.deployment.graph import IntegerNetwork
from nnlab.deployment.quantization import Scheme
from nnlab.errors import InputError
from nnlab.models import CifarResNet, LeNet5

_RANGES = {nn.relu: (0.0, np.inf), nn.hard_tanh: (-1.0, 1.0)}


def quantize(
    model: nn.Module,
    variables: dict,
    images: jax.Array | np.ndarray,
    *,
    bits: int = 8,
    groups: int = 4,
    scheme: Scheme = "redistribution",
    quantile: float = QUANTILE,
    correct_means: bool = True,
) -> IntegerNetwork:
    """A trained model in integers: adder layers in few bits, binary layers in packed signs.

    Args:
        model: `nnlab.models.LeNet5` or `CifarResNet` of adder, binary and float layers; the latter
            with projected shortcuts of blocks and normalised logits, as by default.
        variables: its trained "params" and "batch_stats".
        images: for calibration [n, height, width, channels], as the model takes them; some hundred
            of the training images. The network takes images of the same size.
        bits, groups, scheme: of adder layers, see `nnlab.deployment.quantization`.
        quantile: of each adder layer's inputs, beyond which they saturate.
        correct_means: of all layers, on up to 256 of the images, see `nnlab.deployment.builder`;
            the papers of the schemes do not.

    Raises:
        InputError: the model is another one or has other layers, or an argument is not as above,
            or a sum could leave its accumulator.
    """
    if not isinstance(model, LeNet5 | CifarResNet):
        raise InputError(f"quantize takes a LeNet5 or a CifarResNet, not {type(model).__name__}.")
    if isinstance(model, CifarResNet):
        found = model.shortcuts, model.projection, model.normalize_logits
        if found != ("block", True, True):
            raise InputError(
                'quantize takes a CifarResNet of shortcuts="block", projection=True and '
                f"normalize_logits=True, not {found[0]!r}, {found[1]} and {found[2]}."
            )
    activation: Any = model.arithmetic.activation
    if activation not in _RANGES:
        raise InputError(f"quantize knows relu and hard_tanh between layers, not {activation}.")
    calls = recorded(model, variables, images, quantile)
    first, *carried, _, last = calls
    assert isinstance(first, Layer)
    examples = jnp.asarray(images[:EXAMPLES]) if correct_means else None
    carrier = power_of_two(max(call.most for call in carried)) / 2**15
    build = Builder(examples, carrier, bits, groups, scheme)
    layers = _Layers(build, iter(calls), *_RANGES[activation])
    x = build.images(first, (images.shape[1], images.shape[2]))
    x = _lenet5(layers, x) if isinstance(model, LeNet5) else _cifar_resnet(layers, x, model.depth)
    build.logits(layers(x), last.most)
    return build.network()


class _Layers:
    """The recorded layers, one after the other, each with its BatchNorm."""

    def __init__(self, build: Builder, calls: Iterator[Layer | Norm], low: float, high: float):
        self.build, self.calls, self.low, self.high = build, calls, low, high

    def __call__(self, x: Value) -> Value:
        layer, norm = next(self.calls), next(self.calls)
        assert isinstance(layer, Layer) and isinstance(norm, Norm)
        return self.build.layer(x, layer).normalized(norm)

    def activated(self, x: Value) -> Value:
        return self(x).clipped(self.low, self.high)


def _lenet5(layers: _Layers, x: Value) -> Value:
    for _ in range(2):
        x = layers.activated(x).pooled(2, 2)
    x = x.flattened()
    for _ in range(2):
        x = layers.activated(x)
    return x


def _cifar_resnet(layers: _Layers, x: Value, depth: int) -> Value:
    blocks = (depth - 2) // 6
    x = layers.activated(x)
    for block in range(3 * blocks):
        y = layers(layers.activated(x))
        if y.size != x.size:
            x = layers(x)
        x = layers.build.add(x, y, f"BasicBlock_{block}", layers.low, layers.high)
    return layers.build.mean(x)
