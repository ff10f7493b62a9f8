"""What the layers of a trained network are and what they get, recorded on example images.

Nothing in a model has to be written for it: `flax.linen.intercept_methods` sees every layer called.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nnlab.errors import InputError
from nnlab.layers import (
    AdderConv,
    AdderDense,
    BinaryConv,
    BinaryDense,
    Conv,
)
from nnlab.ops.binary import sign_ste
from nnlab.ops.windows import pair, window_of

QUANTILE = 0.9997  # of the redistribution paper's code
EXAMPLES = 256  # images that means are taken over
_BATCH = 128

_KERNELS = {
    Conv: "kernel",
    nn.Dense: "kernel",
    AdderConv: "adder_kernel",
    AdderDense: "adder_kernel",
    BinaryConv: "binary_kernel",
    BinaryDense: "binary_kernel",
}


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution or dense layer.

    Attributes:
        name: path of its parameters.
        weights: "kernel", "adder_kernel" or "binary_kernel".
        kernel: [kh, kw, in, out] or [in, out].
        bias: [out], zeros where it has none.
        windows: attributes strides and padding of a convolution's node, empty for a dense layer.
        size: height and width of what a convolution gives, 1 and 1 of a dense layer.
        low, high: range of its inputs, each the furthest of all batches' quantiles; `low` is 0
            where no input is negative.
        least, most: of all inputs.
        mean: of what it gives for the first `EXAMPLES` images, a channel [out].
    """

    name: str
    weights: str
    kernel: np.ndarray
    bias: np.ndarray
    windows: dict[str, Any]
    size: tuple[int, int]
    low: float
    high: float
    least: float
    most: float
    mean: np.ndarray


@dataclasses.dataclass(frozen=True)
class Norm:
    """BatchNorm at inference, `scale x + offset` a channel, and the largest abs(y) on record."""

    name: str
    scale: np.ndarray
    offset: np.ndarray
    most: float


def recorded(
    model: nn.Module, variables: Any, images: jax.Array | np.ndarray, quantile: float = QUANTILE
) -> list[Layer | Norm]:
    """The layers of `model` in the order in which they are called.

    Args:
        model: of convolutions, dense layers and BatchNorm.
        variables: its trained "params" and "batch_stats".
        images: for calibration [n, height, width, channels], as the model takes them.
        quantile: of an input that a range leaves in, from 0.5 to 1.

    Raises:
        InputError: a layer is of another kind, or no image or no sensible quantile is given.
    """
    if not 0.5 <= quantile <= 1 or len(images) == 0:
        raise InputError(
            f"calibration takes at least one image and a quantile from 0.5 to 1, "
            f"not {len(images)} images and {quantile}."
        )
    modules: dict[str, nn.Module] = {}

    @jax.jit
    def seen(variables, images):
        values = {}

        def intercept(method, args, kwargs, context):
            y = method(*args, **kwargs)
            layer = context.module
            if context.method_name == "__call__" and _has_parameters(layer):
                name = "/".join(layer.path)
                modules[name] = layer
                value = y if isinstance(layer, nn.BatchNorm) else args[0]
                values[name] = value, y.mean(axis=tuple(range(y.ndim - 1)))
            return y

        with nn.intercept_methods(intercept):
            model.apply(variables, images)
        return values

    shapes: dict[str, tuple[int, ...]] = {}
    ranges: dict[str, list[np.ndarray]] = {}
    means: dict[str, Any] = {}
    for start in range(0, len(images), _BATCH):
        batch = jnp.asarray(images[start : start + _BATCH])
        for name, (value, mean) in seen(variables, batch).items():
            shapes[name] = value.shape
            if start < EXAMPLES:
                share = len(batch) / min(len(images), EXAMPLES)
                means[name] = means.get(name, 0.0) + np.asarray(mean, np.float64) * share
            places = [0, 1] if isinstance(modules[name], nn.BatchNorm) else _places(quantile)
            ranges.setdefault(name, []).append(np.quantile(np.asarray(value), places))
    calls = []
    for name, module in modules.items():
        params, stats = (_at(variables.get(kind, {}), name) for kind in ("params", "batch_stats"))
        lows, highs = np.min(ranges[name], axis=0), np.max(ranges[name], axis=0)
        if isinstance(module, nn.BatchNorm):
            calls.append(_norm(name, module, params, stats, max(abs(lows[0]), abs(highs[-1]))))
            continue
        layer = _layer(name, module, params, shapes[name])
        seen_inputs = min(lows[1], 0.0), highs[2], lows[0], highs[3]
        low, high, least, most = (float(end) for end in seen_inputs)
        mean = means[name]
        found = Layer(name, **layer, low=low, high=high, least=least, most=most, mean=mean)
        calls.append(found)
    return calls


def _places(quantile: float) -> list[float]:
    return [0, 1 - quantile, quantile, 1]


def _has_parameters(layer: nn.Module) -> bool:
    own = layer.variables.get("params", {})
    return any(not isinstance(leaf, Mapping) for leaf in own.values())


def _at(tree: Any, name: str) -> dict[str, np.ndarray]:
    for key in name.split("/"):
        tree = tree.get(key, {})
    return {key: np.asarray(leaf, np.float64) for key, leaf in tree.items()}


def _norm(name: str, module: nn.BatchNorm, params: Any, stats: Any, most: float) -> Norm:
    scale = params.get("scale", 1.0) / np.sqrt(stats["var"] + module.epsilon)
    return Norm(name, scale, params.get("bias", 0.0) - scale * stats["mean"], most)


def _layer(name: str, module: nn.Module, params: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    """What `Layer` says of weights and windows, of a layer that takes `shape`."""
    weights = _KERNELS.get(type(module))
    if weights is None:
        raise InputError(
            f"{name} is a {type(module).__name__}, expected adder, binary or float layers "
            "and BatchNorm."
        )
    options: Any = module  # fields differ from class to class
    if weights == "binary_kernel":
        for quantizer in (options.input_quantizer, options.kernel_quantizer):
            if quantizer is not sign_ste:
                raise InputError(f"{name} has a quantizer other than sign_ste, expected only that.")
    kernel, windows, size = params[weights], {}, (1, 1)
    if kernel.ndim not in (2, 4):
        raise InputError(
            f"{name} has a kernel of shape {kernel.shape}, expected that of a dense layer or of a "
            "convolution of images."
        )
    if kernel.ndim == 4:
        dilation = options.kernel_dilation
        if pair("kernel_dilation", dilation) != (1, 1):
            raise InputError(f"{name} has a kernel dilation of {dilation}, expected 1.")
        window = window_of(shape, kernel.shape, options.strides, options.padding, dilation)
        padding = [list(sides) for sides in window.padding]
        windows = {"strides": list(window.strides), "padding": padding}
        size = window.positions(shape[1:], kernel.shape)
    bias = params.get("bias", np.zeros(kernel.shape[-1]))
    return dict(weights=weights, kernel=kernel, bias=bias, windows=windows, size=size)
