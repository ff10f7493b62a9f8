"""Classification losses: scalar means over logits [batch, classes] and integer labels [batch].

Where augmentation has mixed examples a label is soft: the share of each class, [batch, classes].
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nnlab.data.batches import check_shape, hint_of_classes
from nnlab.errors import InputError


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the softmax cross-entropy in nats, a scalar in the dtype of the logits.

    It is NaN if a label is none of the classes, 0 to `logits.shape[-1]` - 1: JAX takes an index
    beyond an axis as another one, and the network would learn a wrong class. So it is if the
    shares of a soft label are negative or do not add up to 1.

    Args:
        logits: [..., classes].
        labels: numbers of classes, integers [...], or soft labels, floats [..., classes].

    Raises:
        InputError: the labels are neither, or of other shapes than the logits.
    """
    if not hasattr(labels, "dtype"):
        raise InputError(f"labels are a {type(labels).__name__}, expected an array.")
    if are_soft(logits, labels):
        check_shape("soft labels", labels, logits.shape)
        nats = optax.softmax_cross_entropy(logits, labels)
        add_up = jnp.abs(labels.sum(-1, dtype=jnp.float32) - 1) < 0.01
        sound = (labels >= 0).all(-1) & add_up
        return jnp.where(sound, nats, jnp.nan).mean().astype(logits.dtype)
    check_shape("labels", labels, logits.shape[:-1], hint=hint_of_classes(labels, logits.ndim - 1))
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise InputError(f"labels are {labels.dtype}, expected integers, the numbers of classes.")
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    is_class = (labels >= 0) & (labels < logits.shape[-1])
    return jnp.where(is_class, nats, jnp.nan).mean()


def are_soft(logits: jax.Array, labels: jax.Array) -> bool:
    """Return whether labels are shares of classes, floats of as many axes as the logits."""
    return jnp.issubdtype(labels.dtype, jnp.floating) and jnp.ndim(labels) == jnp.ndim(logits)


def soft_labels(labels: jax.Array, classes: int) -> jax.Array:
    """Return labels as shares of classes, float32 [..., classes]: all of it the one they name.

    A label that is none of the classes becomes NaN, as its cross-entropy is. Soft labels stay.

    Raises:
        InputError: they are neither integers nor floats [..., classes].
    """
    if jnp.issubdtype(labels.dtype, jnp.floating):
        if jnp.ndim(labels) > 1 and labels.shape[-1] == classes:
            return jnp.asarray(labels, jnp.float32)
        raise InputError(
            f"labels are {labels.dtype} of shape {list(labels.shape)}, expected integers or, for"
            f" each of {classes} classes, its share."
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise InputError(f"labels are {labels.dtype}, expected integers, the numbers of classes.")
    is_class = (labels >= 0) & (labels < classes)
    return jnp.where(is_class[..., None], jax.nn.one_hot(labels, classes), jnp.nan)


def with_auxiliary(
    loss: Callable[[jax.Array, jax.Array], jax.Array] = cross_entropy, weight: float = 0.3
) -> Callable[[Any, jax.Array], jax.Array]:
    """Return the loss of a network with auxiliary heads: its own plus `weight` times each head's.

        def metrics(outputs, labels):
            return training.accuracy(outputs.logits, labels)

        step = train_step(model, optimizer, with_auxiliary(), metrics=metrics)

    Args:
        loss: `loss(logits, labels)`, a scalar, for the network and for every head.
        weight: at least 0; GoogLeNet uses 0.3, torchvision's training of Inception v3 uses 0.4.

    Returns:
        `loss(outputs, labels)` for outputs with `logits` and a sequence `auxiliary` of the heads'
        logits, as `nnlab.models.GoogLeNet(auxiliary=True)` returns them in training.

    Raises:
        InputError: `weight` is negative or not finite; or, when the loss is called, the outputs
            lack `logits` or `auxiliary`.

    References:
        Szegedy et al., Going deeper with convolutions, CVPR 2015, https://arxiv.org/abs/1409.4842,
        section 5.
    """
    if not 0 <= weight < float("inf"):
        raise InputError(f"weight must be finite and at least 0, not {weight}.")

    def total(outputs: Any, labels: jax.Array) -> jax.Array:
        if not (hasattr(outputs, "logits") and hasattr(outputs, "auxiliary")):
            raise InputError(
                "with_auxiliary needs outputs with logits and auxiliary, as a model with "
                f"auxiliary=True returns them in training, not {type(outputs).__name__}."
            )
        heads = [loss(logits, labels) for logits in outputs.auxiliary]
        return loss(outputs.logits, labels) + weight * sum(heads)

    return total
