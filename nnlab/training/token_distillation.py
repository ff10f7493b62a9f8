r"""Distillation through a token (DeiT): a second head learns from a teacher.

A network with a distillation token has two heads in training, z and d. With the teacher's logits t,
labels y, the cross-entropy H and probabilities p(z) = softmax(z), the losses are

.. math:: L_{hard} = (1 - a)\,H(y, p(z)) + a\,H(\mathrm{argmax}\,t, p(d))              (1)

.. math:: L_{soft} = (1 - a)\,H(y, p(z)) + a\,T^2\,\mathrm{KL}(p(t / T) \,\|\, p(d / T))   (2)

as means over the batch. The teacher sees the same augmented images:

    model = deit_tiny(distilled=True)
    step = train_step(
        model,
        optimizer,
        token_distillation_loss(),
        mix=taught_by(teacher, variables),
        metrics=two_heads_accuracy,
    )

References:
    Touvron et al., Training data-efficient image transformers, 2020,
    https://arxiv.org/abs/2012.12877, section 4, eq. 2 for (2) and 3 for (1), of which (1) was the
    better. The released code divides (2) by the number of classes as well; this is the paper's.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from nnlab.data.batches import check_shape
from nnlab.errors import InputError
from nnlab.training.losses import cross_entropy
from nnlab.training.steps import Batch, Metrics, accuracy


class Taught(NamedTuple):
    """Labels of a batch, and what a teacher says of it.

    Attributes:
        labels: integers [batch], or soft labels [batch, classes].
        teacher: logits [batch, classes].
    """

    labels: jax.Array
    teacher: jax.Array


def taught_by(teacher: nn.Module, variables: Any) -> Callable[[jax.Array, Any, Any], Batch]:
    """Return a `mix` of `train_step` that adds the teacher's logits to the labels, as `Taught`.

    Args:
        teacher: called as `teacher(inputs, train=False)`; it does not learn.
        variables: its parameters and statistics.
    """

    def mix(key: jax.Array, inputs: Any, labels: Any) -> Batch:
        logits: Any = teacher.apply(variables, inputs, train=False)
        return inputs, Taught(labels, lax.stop_gradient(logits))

    return mix


def token_distillation_loss(
    *, hard: bool = True, alpha: float = 0.5, temperature: float = 3.0
) -> Callable[[Any, Taught], jax.Array]:
    """Return the loss (1), or (2) without `hard`, of outputs with `logits` and `distilled`.

    Args:
        hard: whether the second head learns the teacher's decision, not its probabilities.
        alpha: a, weight of the teacher, from 0 to 1. The paper has 0.5 for (1) and 0.1 for (2).
        temperature: T of (2).

    Raises:
        InputError: `alpha` is not from 0 to 1, or `temperature` not positive; or, when the loss is
            called, outputs or labels are others, or the teacher's logits have another shape.
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha must be from 0 to 1, not {alpha}.")
    if not 0 < temperature < float("inf"):
        raise InputError(f"temperature must be positive and finite, not {temperature}.")

    def loss(outputs: Any, labels: Taught) -> jax.Array:
        if not (hasattr(outputs, "distilled") and isinstance(labels, Taught)):
            raise InputError(
                "token distillation needs outputs with logits and distilled, and labels that are "
                f"Taught, not {type(outputs).__name__} and {type(labels).__name__}."
            )
        distilled, teacher = outputs.distilled, lax.stop_gradient(labels.teacher)
        check_shape("the teacher's logits", teacher, distilled.shape)
        own = cross_entropy(outputs.logits, labels.labels)
        if hard:
            taught = cross_entropy(distilled, teacher.argmax(-1))  # (1)
        else:
            log_p, log_q = (jax.nn.log_softmax(z / temperature) for z in (distilled, teacher))
            nats = optax.losses.kl_divergence_with_log_targets(log_p, log_q)
            taught = temperature**2 * jnp.mean(nats)  # (2)
        return (1 - alpha) * own + alpha * taught

    return loss


def two_heads_accuracy(outputs: Any, labels: Taught) -> Metrics:
    """Return {"accuracy"} of the mean of both heads, as the network predicts by."""
    return accuracy((outputs.logits + outputs.distilled) / 2, labels.labels)
