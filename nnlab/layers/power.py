"""The power activation of AdderSR with its exponent: `nnlab.ops.power` with a parameter."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.ops.power import power_activation


class PowerActivation(nn.Module):
    """`sgn(y) |y|^alpha` of [..., in], with one `alpha` that starts at 1, where it is nothing.

    Dtype and shape stay. An optimiser has to keep alpha above 0.
    """

    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, y: jax.Array) -> jax.Array:
        alpha = self.param("alpha", nn.initializers.ones, (), self.param_dtype)
        return power_activation(y, alpha)
