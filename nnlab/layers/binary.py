"""Binary layers: `nnlab.ops.binary` with parameters.

The latent real weights are named `binary_kernel`; by that name `nnlab.optim` updates them with Adam
and keeps them in [-1, 1], and `nnlab.costs` finds that they are stored in one bit.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer

from nnlab.layers.bias import add_bias
from nnlab.ops.binary import binary_conv, binary_dense, sign_ste
from nnlab.ops.windows import Padding, kernel_axes

Quantizer = Callable[[jax.Array], jax.Array]


class BinaryDense(nn.Module):
    """Product of the signs of [..., in] with the signs of the weights."""

    features: int
    use_bias: bool = False
    input_quantizer: Quantizer = sign_ste
    kernel_quantizer: Quantizer = sign_ste
    kernel_init: Initializer = nn.initializers.glorot_uniform()
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.features)
        kernel = self.param("binary_kernel", self.kernel_init, shape, self.param_dtype)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        y = binary_dense(self.input_quantizer(x), self.kernel_quantizer(kernel))
        return add_bias(self, y) if self.use_bias else y


class BinaryConv(nn.Module):
    """Convolution of the signs of [batch, height, width, in] with the signs of the weights.

    Also of [batch, time, in] or [batch, depth, height, width, in], with one or three entries in
    `kernel_size`; a single integer means a square window of images.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    kernel_dilation: int | Sequence[int] = 1
    use_bias: bool = False
    input_quantizer: Quantizer = sign_ste
    kernel_quantizer: Quantizer = sign_ste
    kernel_init: Initializer = nn.initializers.glorot_uniform()
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*kernel_axes(self.kernel_size), x.shape[-1], self.features)
        kernel = self.param("binary_kernel", self.kernel_init, shape, self.param_dtype)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        y = binary_conv(
            self.input_quantizer(x),
            self.kernel_quantizer(kernel),
            strides=self.strides,
            padding=self.padding,
            kernel_dilation=self.kernel_dilation,
        )
        return add_bias(self, y) if self.use_bias else y
