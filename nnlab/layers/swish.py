"""Swish with its slope: `nnlab.ops.activations.swish` with a parameter."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.ops.activations import swish


class Swish(nn.Module):
    """`x / (1 + exp(-beta x))` of [..., features] with one learnt `beta`, which starts at 1.

    Dtype and shape stay. As the activation of an arithmetic each place has its own beta:

        dataclasses.replace(FLOAT, activation=lambda x: Swish()(x))
    """

    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        beta = self.param("beta", nn.initializers.ones, (), self.param_dtype)
        return swish(x, beta.astype(x.dtype))
