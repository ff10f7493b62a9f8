"""Layers of any product: an op of inputs and weights, with parameters.

The op is a function like those of `nnlab.ops.products`: `op(x, kernel, strides=…, padding=…,
kernel_dilation=…)` of images [batch, height, width, in] and filters [kh, kw, in, out]. Quantisers
of inputs, weights and cotangents are part of the op. The weights are called `kernel_name`; by its
name `nnlab.optim` tells how they learn.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer

from nnlab.layers.bias import add_bias
from nnlab.ops.convolution import conv
from nnlab.ops.products import Product
from nnlab.ops.windows import Padding, pair


class ProductConv(nn.Module):
    """`op` of image windows [batch, height, width, in] and `features` filters.

    With `stochastic` the op takes a random key as its keyword `key`, or None where there is none to
    give: in training it comes from the stream "dropout".
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    kernel_dilation: int | Sequence[int] = 1
    use_bias: bool = False
    op: Product = conv
    stochastic: bool = False
    kernel_name: str = "kernel"
    kernel_init: Initializer = nn.initializers.he_normal()
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*pair("kernel_size", self.kernel_size), x.shape[-1], self.features)
        kernel = self.param(self.kernel_name, self.kernel_init, shape, self.param_dtype)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        y = self.op(
            x,
            kernel,
            strides=self.strides,
            padding=self.padding,
            kernel_dilation=self.kernel_dilation,
            **_randomness(self),
        )
        return add_bias(self, y) if self.use_bias else y


class ProductDense(nn.Module):
    """`op` of vectors [..., in], as images of one pixel, and `features` filters of one pixel."""

    features: int
    use_bias: bool = False
    op: Product = conv
    stochastic: bool = False
    kernel_name: str = "kernel"
    kernel_init: Initializer = nn.initializers.he_normal()
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.features)
        kernel = self.param(self.kernel_name, self.kernel_init, shape, self.param_dtype)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        pixels = x.reshape(math.prod(x.shape[:-1]), 1, 1, x.shape[-1])
        y = self.op(pixels, kernel[None, None], **_randomness(self))
        y = y.reshape(*x.shape[:-1], self.features)
        return add_bias(self, y) if self.use_bias else y


def _randomness(layer: ProductConv | ProductDense) -> dict[str, jax.Array | None]:
    if not layer.stochastic:
        return {}
    return {"key": layer.make_rng("dropout") if layer.has_rng("dropout") else None}
