"""Scores of outputs [batch, time, k] for episodes of `nnlab.sequences.algorithmic_tasks`.

An output is the logit of a bit being 1; labels are (targets [batch, time, k], mask [batch, time]),
and steps whose mask is 0 do not count.
"""

import jax
import jax.numpy as jnp
import optax

Labels = tuple[jax.Array, jax.Array]


def bits_per_sequence(logits: jax.Array, labels: Labels) -> jax.Array:
    """Compute the sigmoid cross-entropy in bits: summed over an episode, averaged over the batch.

    This scalar is the measure of Graves, Wayne & Danihelka, 2014, https://arxiv.org/abs/1410.5401,
    section 4.
    """
    targets, mask = labels
    nats = optax.sigmoid_binary_cross_entropy(logits, targets).sum(-1)
    return jnp.sum(nats * mask) / (len(targets) * jnp.log(2.0))


def wholly_right(logits: jax.Array, labels: Labels) -> dict[str, jax.Array]:
    """Compute {"right"}, the share of episodes without a wrong bit. A logit above 0 means 1."""
    targets, mask = labels
    wrong = ((logits > 0) != (targets > 0.5)).any(-1) & (mask > 0)
    return {"right": jnp.mean(~wrong.any(-1))}
