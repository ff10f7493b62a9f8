"""Layers of `nnlab.ops.bit`: a learnt bias, then inputs of one bit with a learnt scale.

The bias of each input starts at 0. A scale starts as that of standard normal inputs, signed, or
after a ReLU; published is that of the first inputs, for which `start_scales` is called once the
other weights are what they are. The weights are named `kernel` and learn by the optimiser of float
weights. As published, scales have a learning rate of 1e-4.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from nnlab.layers.product import ProductConv, ProductDense
from nnlab.ops.attention import Window
from nnlab.ops.bit import bit_attention, bit_conv, initial_scale
from nnlab.ops.front import Product


class _Bit(nn.Module):
    op: Product = bit_conv
    signed: bool = True

    @nn.nowrap
    def _inputs(self: Any, x):
        bias = self.param("input_bias", nn.initializers.zeros, x.shape[-1:], self.param_dtype)
        return x + bias.astype(x.dtype)[(None,) * (x.ndim - 1)]

    @nn.nowrap
    def _further(self: Any, x):
        return (_scale(self, "input_scale", x, self.signed),)

    @nn.nowrap
    def _product(self, x, kernel, scale, **window):
        return self.op(x, kernel, scale, signed=self.signed, **window)


_NORMAL = 4 / math.sqrt(2 * math.pi)  # twice the mean of abs(x), four times that of relu(x)


def _scale(module: nn.Module, name: str, x: jax.Array, signed: bool = True) -> jax.Array:
    def init(_):
        if module.is_initializing():  # whose inputs are often made up
            return jnp.float32(_NORMAL)
        return initial_scale(x, signed).astype(jnp.float32)

    return module.param(name, init)


def start_scales(model: nn.Module, variables: Any, *inputs: Any, **options: Any) -> Any:
    """Return `variables` with the scales of BiT that training starts with, from first inputs.

    A layer's inputs are those that the layers before it make with their new scales.

    Args:
        model: one with layers of this module.
        variables: those of the model, such as of a float one with the same weights.
        *inputs, **options: what `model.apply` takes besides.
    """
    params = flatten_dict(variables["params"])
    kept = {path: leaf for path, leaf in params.items() if path[-1] not in _SCALES}
    rest = {"params": unflatten_dict(kept)}
    rngs = {"params": jax.random.key(0)} | options.pop("rngs", {})  # nothing is drawn
    everything = {**variables, **rest}
    _, made = model.apply(everything, *inputs, mutable=["params"], rngs=rngs, **options)
    return {**variables, "params": made["params"]}


_SCALES = {"input_scale", "query_scale", "key_scale", "probability_scale", "value_scale"}


class BitConv(_Bit, ProductConv):
    """Convolution of bits of inputs with the signs of centred weights.

    It has the attributes of `nnlab.layers.ProductConv` too.

    Attributes:
        signed: whether bits are -1 and +1, or 0 and +1, for inputs that are not negative.
    """


class BitDense(_Bit, ProductDense):
    """Product of bits of [..., in] with the signs of centred weights; see `BitConv`."""


class BitAttention(nn.Module):
    """Attention of bits, with a learnt scale each of queries, keys, probabilities and values."""

    @nn.compact
    def __call__(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        *,
        mask: jax.Array | None = None,
        is_causal: bool = False,
        local_window_size: Window = None,
        scale: float | None = None,
    ) -> jax.Array:
        """Attend; the arguments and the result are those of `nnlab.ops.bit.bit_attention`."""
        scales = (
            _scale(self, "query_scale", query),
            _scale(self, "key_scale", key),
            # Four times the mean of probabilities, whatever they are.
            self.param("probability_scale", lambda _: jnp.float32(4 / key.shape[1])),
            _scale(self, "value_scale", value),
        )
        return bit_attention(
            *(query, key, value, scales),
            mask=mask,
            is_causal=is_causal,
            local_window_size=local_window_size,
            scale=scale,
        )
