"""Maxout on the dense layer of any arithmetic: `nnlab.ops.activations.maxout` behind it."""

from collections.abc import Callable

import flax.linen as nn
import jax
from flax.typing import Dtype

from nnlab.errors import InputError
from nnlab.ops.activations import maxout


class Maxout(nn.Module):
    """[..., in] to the largest of `pieces` affine functions for each of `features`.

    `dense` is that of an arithmetic, called as `dense(features · pieces, use_bias=…, dtype=…)`; of
    adder layers the maximum is minus the distance to the nearest of `pieces` centres. For the
    maximum over channels of a convolution take `nnlab.ops.activations.maxout` itself.

    Raises:
        InputError: `pieces` is below 1.
    """

    features: int
    pieces: int = 2
    dense: Callable[..., nn.Module] = nn.Dense
    use_bias: bool = True
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.pieces < 1:
            raise InputError(f"pieces must be at least 1, not {self.pieces}.")
        units = self.features * self.pieces
        x = self.dense(units, use_bias=self.use_bias, dtype=self.dtype, name="units")(x)
        return maxout(x, self.pieces)
