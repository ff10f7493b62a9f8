"""Initial weights that Flax has no name for."""

import jax
import jax.numpy as jnp
from flax.typing import Initializer


def uniform_between(low: float, high: float) -> Initializer:
    """Numbers spread evenly from `low` to `high`."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, low, high)

    return init
