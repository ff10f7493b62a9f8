"""The float convolution layer: `nnlab.ops.convolution` with parameters."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer

from nnlab.layers.bias import add_bias
from nnlab.ops.convolution import conv
from nnlab.ops.windows import Padding, kernel_axes


class Conv(nn.Module):
    """Convolution of [batch, height, width, in]; parameters as of `flax.linen.Conv`.

    A `kernel_size` of one or three entries makes it one of [batch, time, in] or [batch, depth,
    height, width, in]. A single integer means a square window of images, where Flax's means one
    along time. Strides, padding and dilation as `nnlab.ops.adder.adder_conv`.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    kernel_dilation: int | Sequence[int] = 1
    use_bias: bool = False
    kernel_init: Initializer = nn.initializers.he_normal()
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*kernel_axes(self.kernel_size), x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        y = conv(
            x,
            kernel,
            strides=self.strides,
            padding=self.padding,
            kernel_dilation=self.kernel_dilation,
        )
        return add_bias(self, y) if self.use_bias else y
