"""Losses: mean over the batch of logits [batch, classes] against integer labels [batch]."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross-entropy in nats, a scalar."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def squared_hinge(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean over batch and classes of max(0, 1 - t y)^2, t = +1 for the class and -1 elsewhere.

    References:
        Courbariaux et al., BinaryConnect, 2015, https://arxiv.org/abs/1511.00363, section 3.
    """
    targets = 2 * jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype) - 1
    return jnp.mean(jnp.square(jnp.maximum(0, 1 - targets * logits)))


def mean_squared_error(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean over batch and classes of the squared distance to the one-hot label."""
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return jnp.mean(jnp.square(logits - targets))
