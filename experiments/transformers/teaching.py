"""A float BERT teaches one of another arithmetic: logits, and what every block gives."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from nnlab import training
from nnlab.layers.transformer import Block
from nnlab.sequences.tokens import Tokens


class Outputs(NamedTuple):
    """Logits [batch, classes] of both, and the mean square by which their blocks differ."""

    student: jax.Array
    teacher: jax.Array
    distance: jax.Array


class Taught(nn.Module):
    """A student beside its teacher, classifiers of `Tokens` with blocks of equal shapes.

    The distance is the sum over the blocks of the mean square over real symbols and features. The
    teacher is in evaluation mode and learns nothing; outside of training there is the student only.
    """

    student: nn.Module
    teacher: nn.Module

    @nn.compact
    def __call__(self, tokens: Tokens, train: bool = False) -> Any:
        if not train and not self.is_initializing():
            return self.student(tokens, train=False)
        student, blocks = _with_blocks(self.student, tokens, train)
        teacher, goals = jax.lax.stop_gradient(_with_blocks(self.teacher, tokens, False))
        real = jnp.arange(tokens.symbols.shape[1])[None] < jnp.asarray(tokens.lengths)[:, None]
        distance = sum(
            jnp.mean(jnp.square(block - goal), axis=2).mean(where=real)
            for block, goal in zip(blocks, goals, strict=True)
        )
        return Outputs(student, teacher, jnp.asarray(distance))


def _with_blocks(
    network: nn.Module, tokens: Tokens, train: bool
) -> tuple[jax.Array, list[jax.Array]]:
    blocks = []

    def keep(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        y = call(*args, **kwargs)
        if isinstance(context.module, Block) and context.method_name == "__call__":
            blocks.append(y)
        return y

    with nn.intercept_methods(keep):
        return network(tokens, train=train), blocks


def loss(outputs: Outputs, labels: jax.Array) -> jax.Array:
    """Cross-entropy with the teacher's probabilities, and the distance of the blocks."""
    taught = jax.nn.softmax(outputs.teacher)
    return optax.softmax_cross_entropy(outputs.student, taught).mean() + outputs.distance


def student_accuracy(outputs: Outputs, labels: jax.Array) -> dict[str, jax.Array]:
    return training.accuracy(outputs.student, labels)
