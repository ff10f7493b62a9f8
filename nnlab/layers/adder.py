"""Adder layers: `nnlab.ops.adder` with parameters.

The weights are named `adder_kernel`; by that name `nnlab.optim` gives them their own rate.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer

from nnlab.layers.bias import add_bias
from nnlab.ops.adder import (
    FilterRule,
    InputRule,
    adder_conv,
    adder_dense,
)
from nnlab.ops.windows import Padding, kernel_axes


class AdderDense(nn.Module):
    """Negative L1 distances of [..., in] to `features` centres; weights N(0, 1) as published."""

    features: int
    use_bias: bool = False
    filter_rule: FilterRule = "full"
    input_rule: InputRule = "clip"
    kernel_init: Initializer = nn.initializers.normal(1.0)
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.features)
        kernel = self.param("adder_kernel", self.kernel_init, shape, self.param_dtype)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        y = adder_dense(x, kernel, filter_rule=self.filter_rule, input_rule=self.input_rule)
        return add_bias(self, y) if self.use_bias else y


class AdderConv(nn.Module):
    """Negative L1 distances of image windows to `features` filters, weights N(0, 1) as published.

    Takes [batch, height, width, in], or with one or three entries in `kernel_size`
    [batch, time, in] or [batch, depth, height, width, in]; a single integer means a square window
    of images. Strides, padding and dilation as `nnlab.ops.adder.adder_conv`.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    kernel_dilation: int | Sequence[int] = 1
    use_bias: bool = False
    filter_rule: FilterRule = "full"
    input_rule: InputRule = "clip"
    kernel_init: Initializer = nn.initializers.normal(1.0)
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*kernel_axes(self.kernel_size), x.shape[-1], self.features)
        kernel = self.param("adder_kernel", self.kernel_init, shape, self.param_dtype)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        y = adder_conv(
            x,
            kernel,
            strides=self.strides,
            padding=self.padding,
            kernel_dilation=self.kernel_dilation,
            filter_rule=self.filter_rule,
            input_rule=self.input_rule,
        )
        return add_bias(self, y) if self.use_bias else y
