"""DeepShift-PS: layers that learn the exponents and signs of their weights (`nnlab.ops.shift`).

The exponents `shift_exponent_kernel` start evenly over their range, the signs `shift_sign_kernel`
evenly over [-1, 1], where half of them mean 0. By their names `nnlab.optim` updates both with
RAdam. DeepShift-Q has one array of weights and needs no layer of its own:
`nnlab.layers.ProductConv` takes its op.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype

from nnlab.layers.bias import add_bias
from nnlab.layers.initializers import uniform_between
from nnlab.ops.products import shift_conv
from nnlab.ops.shift import lowest_exponent, shift_ps_weights
from nnlab.ops.windows import Padding, pair


class ShiftPSConv(nn.Module):
    """Convolution of [batch, height, width, in] by signed powers of two of `bits` bits."""

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    kernel_dilation: int | Sequence[int] = 1
    use_bias: bool = False
    bits: int = 5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*pair("kernel_size", self.kernel_size), x.shape[-1], self.features)
        x, shift, sign = promote_dtype(x, *_exponents_and_signs(self, shape), dtype=self.dtype)
        y = shift_conv(
            x,
            shift_ps_weights(shift, sign, bits=self.bits),
            strides=self.strides,
            padding=self.padding,
            kernel_dilation=self.kernel_dilation,
        )
        return add_bias(self, y) if self.use_bias else y


class ShiftPSDense(nn.Module):
    """Product of [..., in] with signed powers of two of `bits` bits."""

    features: int
    use_bias: bool = False
    bits: int = 5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.features)
        x, shift, sign = promote_dtype(x, *_exponents_and_signs(self, shape), dtype=self.dtype)
        pixels = x.reshape(math.prod(x.shape[:-1]), 1, 1, x.shape[-1])
        y = shift_conv(pixels, shift_ps_weights(shift, sign, bits=self.bits)[None, None])
        y = y.reshape(*x.shape[:-1], self.features)
        return add_bias(self, y) if self.use_bias else y


def _exponents_and_signs(layer: ShiftPSConv | ShiftPSDense, shape) -> tuple[jax.Array, jax.Array]:
    exponents = uniform_between(lowest_exponent(layer.bits), 0)
    shift = layer.param("shift_exponent_kernel", exponents, shape, layer.param_dtype)
    sign = layer.param("shift_sign_kernel", uniform_between(-1, 1), shape, layer.param_dtype)
    return shift, sign
