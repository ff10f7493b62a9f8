r"""Denoising auto-encoders: a layer learns to undo the damage that is done to its input.

Some of the inputs x, drawn anew each time, are set to 0. The layer encodes what is left and decodes
it by the same weights, here those of an `RBM`,

.. math:: h = \sigma(c + \tilde x^\top W), \quad z = \sigma(b + W h)                      (1)

and pays for what it has not rebuilt of the undamaged input, the cross-entropy

.. math:: L = -\sum_i x_i \log z_i + (1 - x_i) \log(1 - z_i)                              (2)

Without damage it could copy; to fill in what is missing, it must know how inputs hang together. A
layer of units each that learns this on what the layers below it make of the data gives a stacked
denoising auto-encoder (`nnlab.classics.layerwise`).

References:
    Vincent, Larochelle, Lajoie, Bengio & Manzagol, Stacked denoising autoencoders, JMLR 11, 2010.
"""

import dataclasses
from numbers import Real

import jax
import jax.numpy as jnp
import optax

from nnlab.classics.rbm import RBM, hidden_probabilities
from nnlab.errors import InputError


def reconstruction_loss(params: RBM, clean: jax.Array, damaged: jax.Array) -> jax.Array:
    """Return the cross-entropy (2) of each example, [batch], in nats.

    Args:
        params: weights and biases of (1).
        clean: x, [batch, visible], from 0 to 1.
        damaged: what the layer sees of it, [batch, visible].

    Raises:
        InputError: the inputs do not fit the layer.
    """
    fields = params.visible + hidden_probabilities(params, damaged) @ params.weights.T
    if clean.shape != fields.shape:
        raise InputError(f"clean has shape {list(clean.shape)}, expected {list(fields.shape)}.")
    return jnp.sum(optax.sigmoid_binary_cross_entropy(fields, clean), axis=-1)


@dataclasses.dataclass(frozen=True)
class Denoising:
    """The rule of a denoising auto-encoder, called as `nnlab.classics.rbm.CD` is.

    It returns the negative gradient of the mean of (2), so that layers of both kinds go up.

    Attributes:
        corruption: share of the inputs that are set to 0.

    Raises:
        InputError: the share is not from 0 to 1.
    """

    corruption: float = 0.25

    def __post_init__(self) -> None:
        if not isinstance(self.corruption, Real) or not 0 <= self.corruption <= 1:
            raise InputError(f"corruption is {self.corruption!r}, expected a share from 0 to 1.")

    def __call__(self, key: jax.Array, params: RBM, visible: jax.Array, chains: jax.Array):
        damaged = visible * jax.random.bernoulli(key, 1.0 - self.corruption, visible.shape)
        gradient = jax.grad(lambda p: -jnp.mean(reconstruction_loss(p, visible, damaged)))(params)
        return gradient, chains
