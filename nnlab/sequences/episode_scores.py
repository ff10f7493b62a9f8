"""Scores of outputs [batch, time, k] for episodes of `nnlab.sequences.algorithmic_tasks`.

An output is the logit of a bit being 1; labels are (targets [batch, time, k], mask [batch, time]),
and steps whose mask is 0 do not count. Other shapes are an `InputError`.
"""

import jax
import jax.numpy as jnp
import optax

from nnlab.data.batches import check_shape

Labels = tuple[jax.Array, jax.Array]


def bits_per_sequence(logits: jax.Array, labels: Labels) -> jax.Array:
    """Compute the sigmoid cross-entropy in bits: summed over an episode, averaged over the batch.

    This scalar is the measure of Graves, Wayne & Danihelka, 2014, https://arxiv.org/abs/1410.5401,
    section 4.
    """
    targets, mask = _checked(logits, labels)
    nats = optax.sigmoid_binary_cross_entropy(logits, targets).sum(-1)
    return jnp.sum(nats * mask) / (len(targets) * jnp.log(2.0))


def wholly_right(logits: jax.Array, labels: Labels) -> dict[str, jax.Array]:
    """Compute {"right"}, the share of episodes without a wrong bit. A logit above 0 means 1."""
    targets, mask = _checked(logits, labels)
    wrong = ((logits > 0) != (targets > 0.5)).any(-1) & (mask > 0)
    return {"right": jnp.mean(~wrong.any(-1))}


def _checked(logits: jax.Array, labels: Labels) -> Labels:
    targets, mask = labels
    check_shape("targets", targets, logits.shape)
    check_shape("masks", mask, logits.shape[:-1])
    return labels
