"""What a layer is: a product of its inputs and weights, a normalisation or an embedding.

The name of its weights says which product it is, and must be true of the op that the layer has, if
it has one, and of the numbers that it gave:

=================  ====================================  ==============
weights            product                               op
=================  ====================================  ==============
`kernel`           sum x w                               `conv`
`adder_kernel`     -sum abs(x - w)                       `adder_conv`
`binary_kernel`    sum sgn(x) sgn(w), padding adds 0     `binary_conv`
=================  ====================================  ==============

Besides weights there may be a `bias`. A layer with the statistics `mean` and `var` and with an
`epsilon` is BatchNorm; one with an `epsilon` and without statistics standardises the last axis
(LayerNorm); one with an `embedding` looks up its rows. Nothing depends on the class of a layer or
on its name.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import numpy as np

from nnlab.errors import InputError
from nnlab.ops.adder import adder_conv
from nnlab.ops.binary import binary_conv, sign_ste
from nnlab.ops.convolution import conv
from nnlab.ops.windows import pair, window_of

_OPS = {"kernel": conv, "adder_kernel": adder_conv, "binary_kernel": binary_conv}
_NO_AFFINE = {"scale": 1.0, "bias": 0.0}
_TOLERANCE = 0.01  # of a sum of terms of random signs; by rounded weights it is off by more


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution or dense layer.

    Attributes:
        name: path of its parameters.
        weights: "kernel", "adder_kernel" or "binary_kernel".
        kernel: [kh, kw, in, out] or [in, out]; `in` of one group of channels; with zeros between
            the taps of a dilated one.
        bias: [out], zeros where it has none.
        windows: attributes strides and padding, and groups if there are several, of a
            convolution's node, empty for a dense layer.
        size: height and width of what it gives, 1 and 1 for vectors.
        low, high: range of its inputs, each the furthest of all batches' quantiles; `low` is 0
            where no input is negative.
        least, most: of all inputs.
        mean: of what it gives for the first `EXAMPLES` images, a channel [out].
        tokens: whether it works on each step of sequences.
    """

    name: str
    weights: str
    kernel: np.ndarray
    bias: np.ndarray
    windows: dict[str, Any]
    size: tuple[int, int]
    low: float = 0.0
    high: float = 0.0
    least: float = 0.0
    most: float = 0.0
    mean: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(1))
    tokens: bool = False


@dataclasses.dataclass(frozen=True)
class Norm:
    """BatchNorm at inference, `scale x + offset` a channel, and the largest abs(y) on record."""

    name: str
    scale: np.ndarray
    offset: np.ndarray
    most: float = 0.0


@dataclasses.dataclass(frozen=True)
class Standardized:
    """LayerNorm: the last axis less its mean over its deviation, `scale` times that + `offset`."""

    name: str
    scale: np.ndarray
    offset: np.ndarray
    epsilon: float
    most: float = 0.0


@dataclasses.dataclass(frozen=True)
class Embedding:
    """A row of `table` [symbols, features] for each integer."""

    name: str
    table: np.ndarray
    most: float = 0.0


Known = Layer | Norm | Standardized | Embedding


def recognized(
    name: str, module: nn.Module, own: dict[str, dict[str, Any]], x: np.ndarray, y: np.ndarray
) -> Known:
    """What a layer is, without ranges and means.

    Args:
        name: to call it.
        module: with its options.
        own: its variables by collection and name.
        x, y: what it took and gave [batch, …].

    Raises:
        InputError: it is none of what is above.
    """
    found = {
        kind: {key: np.asarray(leaf, np.float64) for key, leaf in leaves.items()}
        for kind, leaves in own.items()
    }
    params, stats = found.get("params", {}), found.get("batch_stats", {})
    options: Any = module  # fields differ from class to class
    if stats.keys() == {"mean", "var"} and hasattr(module, "epsilon"):
        return _norm(name, options.epsilon, params, stats, x, y)
    names = sorted({*params, *stats} - {"bias"})
    if names == ["embedding"] and np.issubdtype(x.dtype, np.integer):
        return _embedding(name, params["embedding"], x, y)
    if not stats and set(names) <= {"scale"} and hasattr(module, "epsilon"):
        scale, offset = (np.asarray(params.get(key, one)) for key, one in _NO_AFFINE.items())
        found_norm = Standardized(name, scale, offset, float(options.epsilon))
        if _standardizes(found_norm, x, y):
            return found_norm
    if isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.RMSNorm | nn.InstanceNorm):
        raise InputError(
            f"{name} is a {type(module).__name__} of other statistics than those of each position, "
            "expected BatchNorm or LayerNorm."
        )
    if len(names) != 1 or names[0] not in _OPS:
        raise InputError(
            f"{name} is a {type(module).__name__} with {' and '.join(names) or 'a bias alone'}, "
            "expected adder, binary or float layers and BatchNorm."
        )
    (weights,) = names
    _check_op(name, weights, options)
    kernel, windows = params[weights], {}
    tokens = x.ndim == 3
    if kernel.ndim not in (2, 4) or not 2 <= x.ndim <= 4 or (kernel.ndim == 4) > (x.ndim == 4):
        raise InputError(
            f"{name} has a kernel of shape {kernel.shape} on inputs of shape {x.shape}, expected "
            "that of a dense layer or of a convolution of images."
        )
    if kernel.ndim == 4:
        kernel = _undilated(name, options, weights, kernel)
        windows = _windows(name, options, weights, x.shape, kernel.shape)
    size = (y.shape[1], y.shape[2]) if y.ndim == 4 else (1, 1)
    bias = params.get("bias", np.zeros(kernel.shape[-1]))
    layer = Layer(name, weights, kernel, bias, windows, size, tokens=tokens)
    _check_numbers(layer, x, y)
    return layer


def _norm(name: str, epsilon: float, params: Any, stats: Any, x: Any, y: Any) -> Norm:
    variance = stats["var"] + epsilon
    if not (variance > 0).all():
        raise InputError(
            f"{name} has a variance of {stats['var'].min():.4g}, expected none below 0."
        )
    scale = params.get("scale", 1.0) / np.sqrt(variance)
    offset = params.get("bias", 0.0) - scale * stats["mean"]
    if scale.shape == x.shape[-1:]:
        size = abs(scale * x) + abs(offset)
        if (abs(scale * x + offset - y) <= _TOLERANCE * size + 1e-6).all():
            return Norm(name, scale, offset)
    raise InputError(
        f"{name} gives other numbers than BatchNorm by its statistics, expected those."
    )


def _embedding(name: str, table: np.ndarray, x: np.ndarray, y: np.ndarray) -> Embedding:
    known = 0 <= x.min(initial=0) <= x.max(initial=0) < len(table)
    if known and np.allclose(table[x], y, rtol=_TOLERANCE, atol=1e-6):
        return Embedding(name, table)
    raise InputError(f"{name} gives other numbers than rows of its embedding, expected those.")


def _standardizes(norm: Standardized, x: np.ndarray, y: np.ndarray) -> bool:
    x, shape = np.asarray(x, np.float64), x.shape[-1:]
    if x.ndim < 2 or not {norm.scale.shape, norm.offset.shape} <= {(), shape}:
        return False
    deviation = np.sqrt(x.var(axis=-1, keepdims=True) + norm.epsilon)
    expected = norm.scale * (x - x.mean(axis=-1, keepdims=True)) / deviation + norm.offset
    size = abs(expected) + abs(norm.scale) + abs(norm.offset)
    return bool((abs(expected - y) <= _TOLERANCE * size + 1e-6).all())


def _check_op(name: str, weights: str, options: Any) -> None:
    op, expected = getattr(options, "op", None), _OPS[weights]
    while isinstance(op, functools.partial):
        op = op.func
    if callable(op) and op is not expected:
        said = getattr(op, "__name__", type(op).__name__)
        raise InputError(
            f"{name} computes {said} with weights called {weights}, expected {expected.__name__}."
        )
    for quantizer in ("input_quantizer", "kernel_quantizer"):
        if getattr(options, quantizer, sign_ste) is not sign_ste:
            raise InputError(f"{name} has a quantizer other than sign_ste, expected only that.")


def _undilated(name: str, options: Any, weights: str, kernel: np.ndarray) -> np.ndarray:
    """The kernel with zeros where a dilated one skips pixels."""
    if hasattr(options, "transpose_kernel"):
        raise InputError(f"{name} is a transposed convolution, expected an ordinary one.")
    try:
        dilation = pair("kernel_dilation", getattr(options, "kernel_dilation", 1))
    except ValueError as error:
        raise InputError(f"{name} has {error}") from error
    if dilation == (1, 1):
        return kernel
    if weights != "kernel":  # a skipped pixel has a distance and a sign
        raise InputError(f"{name} has a kernel dilation of {dilation}, expected 1.")
    taps = [(n - 1) * d + 1 for n, d in zip(kernel.shape, dilation, strict=False)]
    full = np.zeros((*taps, *kernel.shape[2:]))
    full[:: dilation[0], :: dilation[1]] = kernel
    return full


def _windows(
    name: str, options: Any, weights: str, shape: Any, kernel_shape: Any
) -> dict[str, Any]:
    groups = getattr(options, "feature_group_count", 1)
    if groups > 1 and weights != "kernel":
        raise InputError(f"{name} has {groups} groups of channels, expected one.")
    try:
        strides = getattr(options, "strides", None)
        padding = getattr(options, "padding", "SAME")
        if not isinstance(padding, str | int):  # Flax takes an integer for a pair
            padding = [(side, side) if isinstance(side, int) else side for side in padding]
        window = window_of(shape, kernel_shape, 1 if strides is None else strides, padding, 1)
    except ValueError as error:
        raise InputError(f"{name} has {error}") from error
    found = {"strides": list(window.strides), "padding": [list(side) for side in window.padding]}
    return found | ({"groups": groups} if groups > 1 else {})


def _check_numbers(layer: Layer, x: np.ndarray, y: np.ndarray) -> None:
    """Raise unless the layer gave, at some positions, what its weights say."""
    kernel, image, given = layer.kernel, x[0].astype(np.float64), y[0].astype(np.float64)
    term: dict[str, Callable] = {
        "kernel": lambda x, w: x * w,
        "adder_kernel": lambda x, w: -abs(x - w),
        "binary_kernel": lambda x, w: x * np.where(w >= 0, 1, -1),
    }
    if layer.weights == "binary_kernel":
        image = np.where(image >= 0, 1, -1)
    if kernel.ndim == 2:
        kernel, strides = kernel[None, None], (1, 1)
        image, given = (array.reshape(1, -1, array.shape[-1]) for array in (image, given))
    else:
        strides = layer.windows["strides"]
        image = np.pad(image, [*map(tuple, layer.windows["padding"]), (0, 0)])
        kernel = _whole(kernel, layer.windows.get("groups", 1))
    taps, (rows, columns, _) = kernel.shape[:2], given.shape
    fits = tuple((n - k) // s + 1 for n, k, s in zip(image.shape, taps, strides, strict=False))
    agrees = fits == (rows, columns) and image.shape[2] == kernel.shape[2]
    for i in {0, rows // 2, rows - 1} if agrees else ():
        for j in {0, columns // 2, columns - 1}:
            top, left = i * strides[0], j * strides[1]
            window = image[top : top + taps[0], left : left + taps[1], :, None]
            terms = term[layer.weights](window, kernel).reshape(-1, kernel.shape[-1])
            expected, spread = terms.sum(axis=0) + layer.bias, np.sqrt((terms**2).sum(axis=0))
            rounding = 4 * np.finfo(np.float32 if y.dtype.itemsize > 2 else np.float16).eps
            slack = _TOLERANCE * spread + 8 * rounding * abs(terms).sum(axis=0) + 1e-6
            agrees &= bool((abs(expected - given[i, j]) <= slack).all())
    if not agrees:
        raise InputError(
            f"{layer.name} gives other numbers than {_OPS[layer.weights].__name__} with weights "
            f"called {layer.weights}, expected those."
        )


def _whole(kernel: np.ndarray, groups: int) -> np.ndarray:
    """The kernel of all channels, with zeros between groups."""
    *taps, inputs, outputs = kernel.shape
    if groups == 1:
        return kernel
    whole = np.zeros((*taps, groups, inputs, groups, outputs // groups))
    for group, part in enumerate(np.split(kernel, groups, axis=-1)):
        whole[..., group, :, group, :] = part
    return whole.reshape(*taps, groups * inputs, outputs)
