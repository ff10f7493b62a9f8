"""Layers of `nnlab.ops.bit`: a learnt bias, then inputs of one bit with a learnt scale.

The bias of each input starts at 0, and a scale from the inputs with which parameters are made. The
weights are named `kernel` and learn by the optimiser of float weights. As published, scales have a
learning rate of 1e-4.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

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


def _scale(module: nn.Module, name: str, x: jax.Array, signed: bool) -> jax.Array:
    return module.param(name, lambda _: initial_scale(x, signed).astype(jnp.float32))


class BitConv(_Bit, ProductConv):
    """Convolution of bits of inputs with the signs of centred weights.

    Attributes, besides those of `nnlab.layers.ProductConv`:
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
        mean = jnp.full((), 1 / key.shape[1], jnp.float32)  # of probabilities
        scales = (
            _scale(self, "query_scale", query, True),
            _scale(self, "key_scale", key, True),
            _scale(self, "probability_scale", mean, False),
            _scale(self, "value_scale", value, True),
        )
        return bit_attention(
            *(query, key, value, scales),
            mask=mask,
            is_causal=is_causal,
            local_window_size=local_window_size,
            scale=scale,
        )
