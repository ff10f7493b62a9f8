"""Lp adder layers: `nnlab.ops.lp_adder` with parameters, and p by a schedule of training steps.

A layer counts its steps itself, in the collection `batch_stats`: a call that may change that
collection is a step of training, any other takes p as the training has left it. So p is part of the
state, and a training that goes on from a checkpoint goes on with it. The count is a float32, exact
up to 16 million, because running statistics are averaged over devices and parts of a batch.

The weights are named `adder_kernel`. Once p has come down to 1 they are those of an adder layer.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer

from nnlab.layers.bias import add_bias
from nnlab.ops.lp_adder import lp_adder_conv
from nnlab.ops.windows import Padding, pair


class LpAdderConv(nn.Module):
    """Distances to the p of image windows [batch, height, width, in] to `features` filters.

    `p_schedule` gives p in [1, 2] by the step, as of `optax.linear_schedule(2.0, 1.0, steps)`. A
    schedule of a Python number, `optax.constant_schedule(1.0)`, makes it part of the program.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    kernel_dilation: int | Sequence[int] = 1
    use_bias: bool = False
    p_schedule: optax.Schedule = optax.constant_schedule(1.0)
    kernel_init: Initializer = nn.initializers.normal(1.0)
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*pair("kernel_size", self.kernel_size), x.shape[-1], self.features)
        kernel = self.param("adder_kernel", self.kernel_init, shape, self.param_dtype)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        y = lp_adder_conv(
            x,
            kernel,
            p=_scheduled(self),
            strides=self.strides,
            padding=self.padding,
            kernel_dilation=self.kernel_dilation,
        )
        return add_bias(self, y) if self.use_bias else y


class LpAdderDense(nn.Module):
    """Distances to the p of [..., in] to `features` centres; p as of `LpAdderConv`."""

    features: int
    use_bias: bool = False
    p_schedule: optax.Schedule = optax.constant_schedule(1.0)
    kernel_init: Initializer = nn.initializers.normal(1.0)
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.features)
        kernel = self.param("adder_kernel", self.kernel_init, shape, self.param_dtype)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        pixels = x.reshape(math.prod(x.shape[:-1]), 1, 1, x.shape[-1])
        y = lp_adder_conv(pixels, kernel[None, None], p=_scheduled(self))
        y = y.reshape(*x.shape[:-1], self.features)
        return add_bias(self, y) if self.use_bias else y


def _scheduled(layer: LpAdderConv | LpAdderDense) -> Any:
    """p at this step; counts it."""
    step = layer.variable("batch_stats", "step", jnp.zeros, (), jnp.float32)
    p = layer.p_schedule(step.value)
    if layer.is_mutable_collection("batch_stats") and not layer.is_initializing():
        step.value = step.value + 1
    return p
