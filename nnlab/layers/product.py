"""Layers of any product: an op of inputs and weights, with parameters.

One machine serves all arithmetics. `ProductConv` and `ProductDense` own weights, call an op and add
a bias if asked; the classes after them are the same with other defaults and options. An op is a
function `op(x, kernel, strides=…, padding=…, kernel_dilation=…)`, as in `nnlab.ops.products`, and
quantisers of inputs, weights and cotangents are part of it. A new product needs no new class.

The entries of `kernel_size` decide what a convolution takes: two, or a single integer for a square
window, images [batch, height, width, in]; one or three entries, [batch, time, in] or
[batch, depth, height, width, in]. Flax's single integer means a window along time.

The name of the weights says how they learn (`nnlab.optim`) and what they are (`nnlab.costs`,
`nnlab.deployment`):

===============================================  =================================================
weights                                          learn by
===============================================  =================================================
`kernel`                                         the optimiser of float weights
`adder_kernel`                                   a rate of their own in each layer (AdderNet)
`binary_kernel`                                  Adam, kept in [-1, 1], as latent weights of signs
`shift_exponent_kernel`, `shift_sign_kernel`     RAdam (DeepShift-PS)
===============================================  =================================================

References:
    You et al., ShiftAddNet, NeurIPS 2020, https://arxiv.org/abs/2010.12785, for `ShiftAddConv`.
    For the others see their ops.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer
from jax import lax

from nnlab.layers.initializers import uniform_between
from nnlab.ops.adder import FilterRule, InputRule, adder_conv
from nnlab.ops.binary import binary_conv, sign_ste
from nnlab.ops.convolution import conv
from nnlab.ops.front import Product, over_rows
from nnlab.ops.lp_adder import lp_adder_conv
from nnlab.ops.shift import lowest_exponent, shift_ps_conv, shift_q_conv
from nnlab.ops.windows import Padding, kernel_axes

Quantizer = Callable[[jax.Array], jax.Array]


class _Layer(nn.Module):
    """What convolutions and dense layers of all kinds share. A kind overrides methods of it."""

    @nn.nowrap
    def _weights(self: Any, shape: tuple[int, ...]) -> tuple[jax.Array, ...]:
        """The parameters that the op takes, of which the first has this shape."""
        kernel = self.param(self.kernel_name, self.kernel_init, shape, self.param_dtype)
        return (kernel,)

    @nn.nowrap
    def _inputs(self: Any, x: jax.Array) -> jax.Array:
        """What the op takes of the inputs [..., in], of their dtype."""
        return x

    @nn.nowrap
    def _further(self: Any, x: jax.Array) -> tuple[jax.Array, ...]:
        """Arrays besides inputs and weights that `_product` takes."""
        draws = self.stochastic and self.has_rng("dropout")
        return (self.make_rng("dropout"),) if draws else ()

    @nn.nowrap
    def _product(
        self: Any, x: jax.Array, kernel: jax.Array, *key: jax.Array, **window
    ) -> jax.Array:
        if self.stochastic:
            window["key"] = key[0] if key else None
        return self.op(x, kernel, **window)

    @nn.nowrap
    def _biased(self: Any, y: jax.Array) -> jax.Array:
        if not self.use_bias:
            return y
        zeros = nn.initializers.zeros
        bias = self.param("bias", zeros, (self.features,), self.param_dtype)
        return y + lax.broadcast_to_rank(bias.astype(y.dtype), y.ndim)


class ProductConv(_Layer):
    """`op` of windows of [batch, *sizes, in] and `features` filters.

    Attributes:
        features: number of filters.
        kernel_size, strides, padding, kernel_dilation: see `nnlab.ops.adder.adder_conv`.
        use_bias: whether to add a bias to each feature.
        op: the product.
        stochastic: whether `op` takes a random key as its keyword `key`: from the stream "dropout",
            or None without such a stream.
        kernel_name: name of the weights [*taps, in, features].
        kernel_init: how they start.
        dtype: dtype of the computation; by default that of inputs and parameters together.
        param_dtype: dtype of the parameters.
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
        shape = (*kernel_axes(self.kernel_size), x.shape[-1], self.features)
        x, *weights = promote_dtype(x, *self._weights(shape), dtype=self.dtype)
        x = self._inputs(x)
        y = self._product(
            x,
            *weights,
            *self._further(x),
            strides=self.strides,
            padding=self.padding,
            kernel_dilation=self.kernel_dilation,
        )
        return self._biased(y)


class ProductDense(_Layer):
    """`op` of vectors [..., in] and the columns of a matrix [in, features].

    The attributes are those of `ProductConv`. An op that knows images only gets one-pixel images.
    """

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
        x, *weights = promote_dtype(x, *self._weights(shape), dtype=self.dtype)
        x = self._inputs(x)
        return self._biased(over_rows(self._product, x, *weights, *self._further(x)))


class Conv(ProductConv):
    """Float convolution; parameters as in `flax.linen.Conv`."""


class _Adder(_Layer):
    op: Product = adder_conv
    kernel_name: str = "adder_kernel"
    kernel_init: Initializer = nn.initializers.normal(1.0)
    filter_rule: FilterRule = "full"
    input_rule: InputRule = "clip"

    @nn.nowrap
    def _product(self, x, kernel, **window):
        rules: Any = {"filter_rule": self.filter_rule, "input_rule": self.input_rule}
        return self.op(x, kernel, **rules, **window)


class AdderConv(_Adder, ProductConv):
    """Negative L1 distances of windows to `features` filters; weights N(0, 1) as published."""


class AdderDense(_Adder, ProductDense):
    """Negative L1 distances of [..., in] to `features` centres; weights N(0, 1) as published."""


class _LpAdder(_Layer):
    op: Product = lp_adder_conv
    kernel_name: str = "adder_kernel"
    kernel_init: Initializer = nn.initializers.normal(1.0)
    p_schedule: optax.Schedule = optax.constant_schedule(1.0)

    @nn.nowrap
    def _further(self, x):
        step = self.variable("batch_stats", "step", jnp.zeros, (), jnp.float32)
        p = self.p_schedule(step.value)
        if self.is_mutable_collection("batch_stats") and not self.is_initializing():
            step.value = step.value + 1
        return (p,) if isinstance(p, jax.Array) else ()

    @nn.nowrap
    def _product(self, x, kernel, *p, **window):
        return self.op(x, kernel, p=p[0] if p else self.p_schedule(0), **window)


class LpAdderConv(_LpAdder, ProductConv):
    """Distances to the p of windows to `features` filters, p by a schedule of training steps.

    `p_schedule` gives p in [1, 2] by the step, as `optax.linear_schedule(2.0, 1.0, steps)` does. A
    schedule of a Python number, `optax.constant_schedule(1.0)`, makes it part of the program.

    The layer counts its steps itself, in the collection `batch_stats`: a call that may change that
    collection is a training step, any other takes p as training has left it. So p is part of the
    state, and a training that resumes from a checkpoint goes on with it. The count is a float32,
    exact up to 16 million, because running statistics are averaged over devices and parts of a
    batch. Once p is 1 the weights are those of an adder self.
    """


class LpAdderDense(_LpAdder, ProductDense):
    """Distances to the p of [..., in] to `features` centres; p as in `LpAdderConv`."""


class _Binary(_Layer):
    op: Product = binary_conv
    kernel_name: str = "binary_kernel"
    kernel_init: Initializer = nn.initializers.glorot_uniform()
    input_quantizer: Quantizer = sign_ste
    kernel_quantizer: Quantizer = sign_ste

    @nn.nowrap
    def _product(self, x, kernel, **window):
        return self.op(self.input_quantizer(x), self.kernel_quantizer(kernel), **window)


class BinaryConv(_Binary, ProductConv):
    """Convolution of the signs of inputs with the signs of latent real weights."""


class BinaryDense(_Binary, ProductDense):
    """Product of the signs of [..., in] with the signs of latent real weights."""


class _ShiftPS(_Layer):
    op: Product = shift_ps_conv
    bits: int = 5

    @nn.nowrap
    def _weights(self: Any, shape):
        exponents = uniform_between(lowest_exponent(self.bits), 0)
        shift = self.param("shift_exponent_kernel", exponents, shape, self.param_dtype)
        signs = uniform_between(-1, 1)
        return shift, self.param("shift_sign_kernel", signs, shape, self.param_dtype)

    @nn.nowrap
    def _product(self, x, shift, sign, **window):
        return self.op(x, shift, sign, bits=self.bits, **window)


class ShiftPSConv(_ShiftPS, ProductConv):
    """Convolution by signed powers of two of `bits` bits, whose exponents and signs are learnt.

    Exponents start uniform over their range, signs uniform over [-1, 1], where half of them mean 0.
    DeepShift-Q has one array of weights: `ProductConv(op=shift_q_conv)`.
    """


class ShiftPSDense(_ShiftPS, ProductDense):
    """Product with signed powers of two of `bits` bits; parameters as in `ShiftPSConv`."""


def _shift_add_conv(x, kernel, adder_kernel, *, bits, **window):
    return adder_conv(shift_q_conv(x, kernel, bits=bits, **window), adder_kernel)


class _ShiftAdd(_Layer):
    op: Product = _shift_add_conv
    adder_kernel_init: Initializer = nn.initializers.normal(1.0)
    bits: int = 5

    @nn.nowrap
    def _weights(self: Any, shape):
        square = (*shape[:-2], shape[-1], shape[-1])
        adder_kernel = "adder_kernel", self.adder_kernel_init, square, self.param_dtype
        return *super()._weights(shape), self.param(*adder_kernel)

    @nn.nowrap
    def _product(self, x, kernel, adder_kernel, **window):
        return self.op(x, kernel, adder_kernel, bits=self.bits, **window)


class ShiftAddConv(_ShiftAdd, ProductConv):
    """ShiftAddNet's block: a shift convolution to `features`, then an adder among them.

    Shifts reach what scales as a product does, and adders what lies between powers of two. Both
    have windows of `kernel_size`; strides, padding and dilation are those of the first, and the
    adder keeps the shape. `bits` is the size of a weight of the shift.
    """


class ShiftAddDense(_ShiftAdd, ProductDense):
    """ShiftAddNet's block of vectors [..., in]."""
