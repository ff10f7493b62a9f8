"""Evaluation of recurrent networks on sequences too long for all outputs to fit in memory."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from nnlab.data.batches import shared_size
from nnlab.errors import check_count
from nnlab.layers.sequences import no_carry
from nnlab.training.evaluation import Evaluation
from nnlab.training.losses import cross_entropy
from nnlab.training.steps import (
    Batch,
    Loss,
    Metrics,
    State,
    accuracy,
)


def long_evaluation(
    model: nn.Module,
    loss: Loss = cross_entropy,
    length: int = 100,
    weights: Callable[[State], Any] = lambda state: state.params,
    *,
    metrics: Callable[[Any, Any], Metrics] = accuracy,
) -> Evaluation:
    """Return `evaluate(state, (inputs, labels)) -> metrics`, compiled, over whole sequences.

    The result is that of `nnlab.training.evaluation`, for inputs and labels [sequences, time, ...],
    or trees of them, and a model whose recurrent layers carry their state
    (`nnlab.layers.sequences`). The outputs of only `length` time steps are in memory at once; each
    piece continues from the state in which the one before ended, and the first starts from zeros.

    Raises:
        InputError: `length` is below 1; or, when `evaluate` is called, arrays differ in their
            number of sequences or of time steps.
    """
    check_count("length", length)

    @jax.jit
    def evaluate(state: State, data: Batch) -> Metrics:
        shared_size(data)
        steps = shared_size(data, axis=1)
        variables = {"params": weights(state), "batch_stats": state.batch_stats}

        def piece(carry: Any, batch: Batch) -> tuple[Any, Metrics]:
            outputs, after = model.apply(
                variables | carry, batch[0], train=False, mutable=["carry"]
            )
            return after, {"loss": loss(outputs, batch[1]), **metrics(outputs, batch[1])}

        pieces, rest = divmod(steps, length)
        full = jax.tree.map(lambda a: _pieces(a, pieces, length), data)
        last = jax.tree.map(lambda a: a[:, pieces * length :], data)
        first = jax.tree.map(lambda a: a[:, :1], data[0])
        carry, found = lax.scan(piece, no_carry(model, variables, first), full)
        total = jax.tree.map(lambda m: m.sum(0) * length, found)
        if rest:
            found = piece(carry, last)[1]
            total = jax.tree.map(lambda t, m: t + m * rest, total, found)
        return jax.tree.map(lambda t: t / steps, total)

    return Evaluation(model, weights, evaluate)


def _pieces(array: jax.Array, count: int, length: int) -> jax.Array:
    """Cut [sequences, time, ...] into its first `count` pieces, [count, sequences, length, ...]."""
    cut = array[:, : count * length].reshape(len(array), count, length, *array.shape[2:])
    return jnp.moveaxis(cut, 1, 0)
