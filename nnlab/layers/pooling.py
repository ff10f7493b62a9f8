"""Pooling that differs between training and evaluation: `nnlab.ops.stochastic_pooling`."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from nnlab.ops.stochastic_pooling import expected_pool, stochastic_pool
from nnlab.ops.windows import Padding


class StochasticPool(nn.Module):
    """A pixel drawn from each window in training, the mean by the same probabilities otherwise.

    For images that are not negative; without parameters. The draws come from the stream "dropout".
    """

    window: int | Sequence[int] = 2
    strides: int | Sequence[int] | None = None
    padding: Padding = "VALID"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        if train:
            key = self.make_rng("dropout")
            return stochastic_pool(key, x, self.window, self.strides, self.padding)
        return expected_pool(x, self.window, self.strides, self.padding)
