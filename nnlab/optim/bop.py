r"""Bop: binary weights that flip, without latent real weights.

.. math:: m_t = (1 - \gamma) m_{t-1} + \gamma g_t                                          (1)
.. math:: w_t = -w_{t-1} \text{ where } m_t w_{t-1} > \tau, \text{ else } w_{t-1}           (2)

for weights of -1 and +1, so that one flips once the average of its gradients is larger than tau and
has its sign. There is no learning rate: a factor of the gradients is one of tau.

References:
    Helwegen et al., Latent Weights Do Not Exist, NeurIPS 2019, https://arxiv.org/abs/1906.02107,
    Algorithm 1. On CIFAR-10 the authors' code takes tau 1e-8 and gamma 1e-4, the latter a tenth as
    large every 100 epochs of 1,000 steps, and Adam at 0.01 for the other weights.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from nnlab.errors import InputError
from nnlab.optim.values import check_number


class BopState(NamedTuple):
    """The number of updates, int32 scalar, and the averages (1), shaped like the parameters."""

    count: jax.Array
    mean: Any


def bop(
    threshold: float = 1e-8, gamma: optax.ScalarOrSchedule = 1e-4
) -> optax.GradientTransformation:
    """Flip binary weights by (2); for kernels named `binary_kernel`:

        adder_recipe(steps, parts={"binary": bop()})

    Weights plus updates are exactly -1 and +1. A weight that is neither, such as an initial weight
    drawn from a continuous distribution, becomes its sign in the first update, whatever its
    gradient; layers use the sign alone and see no difference. (Beyond 2^24, in float32, it takes a
    second update.) The sign of 0 is +1, as in `nnlab.ops.binary`. Averages are held in float32 or
    wider.

    Args:
        threshold: tau, above which an average flips its weight.
        gamma: share of each new gradient in the average, a number or a schedule.

    Raises:
        InputError: `threshold` is negative or not finite, or `gamma` a number that is not above 0
            and at most 1.
    """
    check_number("threshold", threshold)
    if not (callable(gamma) or isinstance(gamma, Tracer) or 0 < gamma <= 1):
        raise InputError(f"gamma must be a number above 0 and at most 1, not {gamma}.")

    def init(params):
        def zeros(p):
            return jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32))

        return BopState(jnp.zeros((), jnp.int32), jax.tree.map(zeros, params))

    def flip(w: jax.Array, m: jax.Array) -> jax.Array:
        sign = jnp.where(w >= 0, 1, jnp.where(w < 0, -1, w))  # of a NaN a NaN
        flips = (jnp.abs(w) == 1) & (m * sign > threshold)  # (2)
        return (jnp.where(flips, -sign, sign) - w).astype(w.dtype)

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("bop needs the parameters: update(updates, state, params).")
        rate = gamma(state.count) if callable(gamma) else gamma
        mean = jax.tree.map(lambda m, g: (1 - rate) * m + rate * g, state.mean, updates)  # (1)
        flips = jax.tree.map(flip, params, mean)
        return flips, BopState(jnp.asarray(optax.safe_increment(state.count)), mean)

    return optax.GradientTransformation(init, update)
