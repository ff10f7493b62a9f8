r"""Losses of two players: a critic tells real from fake, a generator learns to deceive it.

With logits r of real examples and f of fake ones, means over the batch, and
:math:`\mathrm{sp}(a) = \log(1 + e^a)`,

==================  ==================================================  ========================
loss                critic                                              generator
==================  ==================================================  ========================
`NON_SATURATING`    :math:`\mathrm{sp}(-r) + \mathrm{sp}(f)`            :math:`\mathrm{sp}(-f)`
`HINGE`             :math:`\max(0, 1 - r) + \max(0, 1 + f)`             :math:`-f`
`LEAST_SQUARES`     :math:`(r - 1)^2 / 2 + f^2 / 2`                     :math:`(f - 1)^2 / 2`
`WASSERSTEIN`       :math:`f - r`                                       :math:`-f`
==================  ==================================================  ========================

A Wasserstein critic must have slopes of at most 1, for which `gradient_penalty` asks.

References:
    Goodfellow et al., Generative Adversarial Nets, NeurIPS 2014, https://arxiv.org/abs/1406.2661,
    section 3, for the non-saturating loss, whose critic has 2 log 2 where it cannot tell.
    Lim and Ye, Geometric GAN, 2017, https://arxiv.org/abs/1705.02894, for the hinge.
    Mao et al., Least Squares GANs, ICCV 2017, https://arxiv.org/abs/1611.04076, eq. (9).
    Arjovsky et al., Wasserstein GAN, ICML 2017, https://arxiv.org/abs/1701.07875.
    Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017,
    https://arxiv.org/abs/1704.00028, eq. (3), for the penalty.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nnlab.data.batches import check_shape


@dataclasses.dataclass(frozen=True)
class AdversarialLoss:
    """What either player minimises, a scalar.

    Attributes:
        critic: `critic(real, fake)`, of logits of any shapes.
        generator: `generator(fake)`.
    """

    critic: Callable[[jax.Array, jax.Array], jax.Array]
    generator: Callable[[jax.Array], jax.Array]


NON_SATURATING = AdversarialLoss(
    lambda real, fake: jax.nn.softplus(-real).mean() + jax.nn.softplus(fake).mean(),
    lambda fake: jax.nn.softplus(-fake).mean(),
)
HINGE = AdversarialLoss(
    lambda real, fake: jax.nn.relu(1 - real).mean() + jax.nn.relu(1 + fake).mean(),
    lambda fake: -fake.mean(),
)
LEAST_SQUARES = AdversarialLoss(
    lambda real, fake: jnp.square(real - 1).mean() / 2 + jnp.square(fake).mean() / 2,
    lambda fake: jnp.square(fake - 1).mean() / 2,
)
WASSERSTEIN = AdversarialLoss(
    lambda real, fake: fake.mean() - real.mean(), lambda fake: -fake.mean()
)


def gradient_penalty(
    critic: Callable[[jax.Array], jax.Array], key: jax.Array, real: jax.Array, fake: jax.Array
) -> jax.Array:
    """Return the mean of (|slope| - 1)² at a random point between each real and fake example.

    Its gradient by the critic's parameters takes derivatives of the critic's gradient rules. Those
    of adders can be differentiated again (reverse over reverse): the slope is what the input rule
    gives, and the penalty pulls at that. With the rule "sign" a slope is piecewise constant in
    weights and inputs, and only the cotangents that reach it are left to learn.

    Args:
        critic: from examples to logits [examples], each by itself: no batch normalisation.
        key: draws the points.
        real, fake: [examples, ...].

    Raises:
        InputError: they have not the same shape.
    """
    check_shape("fake examples", fake, real.shape)
    share = jax.random.uniform(key, (len(real), *(1 for _ in real.shape[1:])), real.dtype)
    between = real + share * (fake - real)
    slopes: Any = jax.grad(lambda x: critic(x).sum())(between)
    squares = jnp.square(slopes).reshape(len(real), -1).sum(axis=1)
    # The root has no derivative at 0, where a critic that is constant would make all of it NaN.
    norms = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
    return jnp.square(norms - 1).mean()
