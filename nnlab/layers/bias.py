"""A bias a feature, for layers that take `use_bias`."""

import flax.linen as nn
import jax


def add_bias(layer, y: jax.Array) -> jax.Array:
    """`y` [..., features] plus the parameter `bias` of `layer`, from within its compact method."""
    bias = layer.param("bias", nn.initializers.zeros, (layer.features,), layer.param_dtype)
    return y + bias.astype(y.dtype)
