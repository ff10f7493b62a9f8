"""Transposed convolution in any arithmetic: from small images to large ones.

The convolution layer of the arithmetic, at stride 1, of images with zeros between their pixels
(`nnlab.ops.transposed`). For an adder these zeros are inputs like any others, and contribute -|w|,
as padding does. How many pixels a window meets, and with it the mean of an adder's outputs, differs
from place to place unless the strides divide the kernel size: choose one that they do.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
from flax.typing import Dtype

from nnlab.errors import InputError, check_maker
from nnlab.ops.transposed import spread, transposed_padding
from nnlab.ops.windows import Padding, kernel_axes


class ConvTranspose(nn.Module):
    """Transposed convolution of [batch, height, width, in] by a layer of `conv`.

    `conv` is that of an arithmetic, called as `conv(features, kernel_size, padding=…,
    kernel_dilation=…, use_bias=…, dtype=…)`. Its kernel [kh, kw, in, features] is laid on as in any
    convolution, so in the arithmetic `FLOAT` this is `flax.linen.ConvTranspose` with its
    `transpose_kernel=False`; `torch.nn.ConvTranspose2d` lays it on flipped. Where `conv` takes one
    or three entries of `kernel_size`, it is a transposed convolution of sequences or volumes.

    `padding` is "SAME", for `strides` times the pixels, "VALID", "FULL", an integer or a pair for
    each axis, as of `nnlab.ops.transposed.transposed_padding`.

    Raises:
        InputError: x has not the axes of `kernel_size`, one of batch and one of channels.
        ValueError: sizes, strides or padding do not fit, as of the op of `conv`.
    """

    conv: Callable[..., nn.Module]
    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    kernel_dilation: int | Sequence[int] = 1
    use_bias: bool = False
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_maker("conv", self.conv, "nnlab.arithmetics.ADDER.conv")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        taps = kernel_axes(self.kernel_size)
        if x.ndim != len(taps) + 2:
            raise InputError(
                f"ConvTranspose of kernel_size {self.kernel_size} expects x of {len(taps) + 2} "
                f"axes, not of shape {x.shape}."
            )
        padding = transposed_padding(taps, self.strides, self.padding, self.kernel_dilation)
        layer = self.conv(
            self.features,
            self.kernel_size,
            padding=padding,
            kernel_dilation=self.kernel_dilation,
            use_bias=self.use_bias,
            dtype=self.dtype,
        )
        return layer(spread(x, self.strides))
