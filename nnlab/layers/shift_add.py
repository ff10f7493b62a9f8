"""The block of ShiftAddNet: a convolution by powers of two, and an adder right behind it.

Shifts reach what scales as a product does, and adders what lies between powers of two; the block
stands where one convolution stood and has the weights of both, named `kernel` for the shift and
`adder_kernel`, by which `nnlab.optim` tells how they learn.

References:
    You et al., ShiftAddNet, NeurIPS 2020, https://arxiv.org/abs/2010.12785.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer

from nnlab.layers.bias import add_bias
from nnlab.ops.adder import adder_conv
from nnlab.ops.shift import shift_q_conv
from nnlab.ops.windows import Padding, pair


class ShiftAddConv(nn.Module):
    """A shift convolution from `in` to `features`, then an adder among `features`.

    Takes [batch, height, width, in]. Both have the size of `kernel_size`; strides, padding and
    dilation are those of the first, as of `nnlab.ops.adder.adder_conv`, and the adder keeps the
    shape. `bits` are of a weight of the shift.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    kernel_dilation: int | Sequence[int] = 1
    use_bias: bool = False
    bits: int = 5
    kernel_init: Initializer = nn.initializers.he_normal()
    adder_kernel_init: Initializer = nn.initializers.normal(1.0)
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = pair("kernel_size", self.kernel_size)
        shape, square = (*size, x.shape[-1], self.features), (*size, self.features, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        adder_kernel = self.param("adder_kernel", self.adder_kernel_init, square, self.param_dtype)
        x, kernel, adder_kernel = promote_dtype(x, kernel, adder_kernel, dtype=self.dtype)
        y = shift_q_conv(
            x,
            kernel,
            bits=self.bits,
            strides=self.strides,
            padding=self.padding,
            kernel_dilation=self.kernel_dilation,
        )
        y = adder_conv(y, adder_kernel)
        return add_bias(self, y) if self.use_bias else y


class ShiftAddDense(nn.Module):
    """The block of vectors [..., in], as images of one pixel."""

    features: int
    use_bias: bool = False
    bits: int = 5
    kernel_init: Initializer = nn.initializers.he_normal()
    adder_kernel_init: Initializer = nn.initializers.normal(1.0)
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape, square = (x.shape[-1], self.features), (self.features, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        adder_kernel = self.param("adder_kernel", self.adder_kernel_init, square, self.param_dtype)
        x, kernel, adder_kernel = promote_dtype(x, kernel, adder_kernel, dtype=self.dtype)
        pixels = x.reshape(math.prod(x.shape[:-1]), 1, 1, x.shape[-1])
        y = shift_q_conv(pixels, kernel[None, None], bits=self.bits)
        y = adder_conv(y, adder_kernel[None, None]).reshape(*x.shape[:-1], self.features)
        return add_bias(self, y) if self.use_bias else y
