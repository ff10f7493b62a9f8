"""How a generator and its critic are told the class that an image shall have.

A generator takes the pair (latents, classes) and appends the one-hot class to the latents (Mirza
and Osindero, Conditional GANs, 2014, https://arxiv.org/abs/1411.1784). A critic takes (images,
classes) and adds to its logit the inner product of its last features, summed over positions, with a
learnt vector of the class (Miyato and Koyama, cGANs with Projection Discriminator, ICLR 2018,
https://arxiv.org/abs/1802.05637, eq. (4)).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nnlab.errors import InputError
from nnlab.vision.generation.normalization import Normalization, bounded


def split_classes(name: str, inputs: Any, classes: int | None) -> tuple[jax.Array, Any]:
    """Return inputs and classes, or None for these where the network has no classes.

    Raises:
        InputError: there is a pair where an array is expected, or the other way round.
    """
    pair = isinstance(inputs, tuple | list)
    if pair != (classes is not None) or (pair and len(inputs) != 2):
        wanted = "an array" if classes is None else "a pair of them and classes [n]"
        raise InputError(
            f"{name} are a {type(inputs).__name__}, expected {wanted}: classes={classes}."
        )
    return (inputs[0], inputs[1]) if pair else (inputs, None)


def with_class(latents: jax.Array, labels: Any, classes: int | None) -> jax.Array:
    """Return latents [n, latents], with the one-hot class appended where there are classes."""
    if classes is None:
        return latents
    return jnp.concatenate([latents, jax.nn.one_hot(labels, classes, dtype=latents.dtype)], axis=1)


def projection(
    features: jax.Array, labels: Any, classes: int | None, kind: Normalization, train: bool
) -> jax.Array | float:
    """Return what the class adds to the logits [n] of features [n, height, width, channels]."""
    if classes is None:
        return 0.0
    embed = nn.Embed(classes, features.shape[-1], embedding_init=nn.initializers.normal(0.02))
    return (bounded(embed, kind, train)(labels) * features.sum(axis=(1, 2))).sum(axis=1)
