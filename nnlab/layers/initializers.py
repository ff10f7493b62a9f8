"""Initial weights that Flax has no name for, and which of its own to take.

Layers that multiply start with `flax.linen.initializers.he_normal`, N(0, 2 / inputs), in front of
ReLU and its family, and with `xavier_uniform` or `xavier_normal`, 2 / (inputs + outputs), in front
of tanh and the like.

Adder layers start with `normal(1.0)` as published, whatever their number of inputs, because their
weights are centres among the inputs, ReLUs of normalised numbers. In a deep stack without shortcuts
that is too narrow. An input above all centres adds the same to each distance, so units agree more
from layer to layer: those of adder layers 64 wide with BatchNorm and ReLU correlate by 0.5 after
one layer, 0.94 after two and 0.998 after eight. What units have in common BatchNorm takes out of
gradients, and nothing is left of them. From `normal(3.0)` most inputs lie between centres on both
sides, and correlations stay at 0.2 in any depth:

    wide = functools.partial(AdderDense, kernel_init=nn.initializers.normal(3.0))
    MLP(arithmetic=dataclasses.replace(ADDER, dense=wide))

`experiments/optimisers/vanishing_gradients.py` trains both.

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
