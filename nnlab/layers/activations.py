"""Activations with parameters, and pooling that draws in training.

The mathematics is in `nnlab.ops.activations`, `nnlab.ops.power` and `nnlab.ops.pooling`.
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.errors import InputError, check_maker
from nnlab.ops.activations import maxout, swish
from nnlab.ops.pooling import expected_pool, stochastic_pool
from nnlab.ops.power import power_activation
from nnlab.ops.windows import Padding


def leaky(
    activation: Callable[[jax.Array], jax.Array], slope: float
) -> Callable[[jax.Array], jax.Array]:
    """Return a leaky rectifier in place of the rectifier, and any other activation as it is."""
    return (
        functools.partial(nn.leaky_relu, negative_slope=slope)
        if activation is nn.relu
        else activation
    )


class Maxout(nn.Module):
    """[..., in] to the largest of `pieces` affine functions for each of `features`.

    `dense` is the dense layer of an arithmetic, called as `dense(features · pieces, use_bias=…,
    dtype=…)`; with an adder layer the maximum is minus the distance to the nearest of `pieces`
    centres. For the maximum over channels of a convolution call `nnlab.ops.activations.maxout`.

    Raises:
        InputError: `pieces` is below 1.
    """

    features: int
    pieces: int = 2
    dense: Callable[..., nn.Module] = nn.Dense
    use_bias: bool = True
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_maker("dense", self.dense, "nnlab.arithmetics.ADDER.dense")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.pieces < 1:
            raise InputError(f"pieces must be at least 1, not {self.pieces}.")
        units = self.features * self.pieces
        x = self.dense(units, use_bias=self.use_bias, dtype=self.dtype, name="units")(x)
        return maxout(x, self.pieces)


class PowerActivation(nn.Module):
    """`sgn(y) |y|^alpha` of [..., in], with one learnt `alpha`, which starts at 1 (the identity).

    Dtype and shape stay. An optimiser has to keep alpha above 0.
    """

    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, y: jax.Array) -> jax.Array:
        alpha = self.param("alpha", nn.initializers.ones, (), self.param_dtype)
        return power_activation(y, alpha)


class Swish(nn.Module):
    """`x / (1 + exp(-beta x))` of [..., features], with one learnt `beta`, which starts at 1.

    Dtype and shape stay. As the activation of an arithmetic each place has its own beta:

        dataclasses.replace(FLOAT, activation=lambda x: Swish()(x))
    """

    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        beta = self.param("beta", nn.initializers.ones, (), self.param_dtype)
        return swish(x, beta.astype(x.dtype))


class StochasticPool(nn.Module):
    """A pixel drawn from each window in training, the mean by the same probabilities otherwise.

    For images that are not negative; without parameters. Draws come from the stream "dropout".
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
