"""A network's answers to examples that it is not trained on, a batch at a time."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from nnlab.training.epochs import split_batch
from nnlab.training.losses import cross_entropy
from nnlab.training.steps import (
    Batch,
    Loss,
    Metrics,
    State,
    accuracy,
)


def evaluation(
    model: nn.Module,
    loss: Loss = cross_entropy,
    batch_size: int = 500,
    weights: Callable[[State], Any] = lambda state: state.params,
    *,
    metrics: Callable[[Any, Any], Metrics] = accuracy,
    mesh: Mesh | None = None,
) -> Callable[[State, Batch], Metrics]:
    """Returns `evaluate(state, (inputs, labels)) -> {"loss", ...}` over all examples.

    Runs in evaluation mode: BatchNorm uses its running statistics, dropout is off, and recurrent
    layers start at zeros. `weights` says which parameters of the state to use, such as their moving
    average; beside the loss there are the `metrics`, as of `train_step`. On a `mesh`, as of
    `train_steps`, every device computes its part of each batch.
    """

    @jax.jit
    def evaluate(state: State, data: Batch) -> Metrics:
        variables = {"params": weights(state), "batch_stats": state.batch_stats}

        def apply(examples):
            return model.apply(variables, examples, train=False)

        outputs = in_batches(apply, data[0], batch_size, mesh=mesh)
        return {"loss": loss(outputs, data[1]), **metrics(outputs, data[1])}

    return evaluate


def in_batches(
    fn: Callable[[jax.Array], Any],
    examples: jax.Array,
    batch_size: int,
    *,
    mesh: Mesh | None = None,
) -> Any:
    """`fn(examples)` for a function of each example alone, `batch_size` of them in memory at once.

    `fn` returns an array, or a tree of arrays, whose first axis is that of the examples. On a
    `mesh`, as of `train_steps`, a batch is split over the devices, by which its size is rounded
    down to a multiple; examples that lie on every device, or are split over the devices in order,
    stay where they are, but for those that fill no batch.
    """
    if mesh is not None:
        devices = mesh.shape["data"]
        batch_size = max(batch_size // devices, 1) * devices
    batches, rest = divmod(len(examples), batch_size)
    pieces = []
    # Batch i takes examples i, i + batches, i + 2 batches, …: on a mesh, as many of each device.
    full = examples[: len(examples) - rest].reshape(batch_size, batches, *examples.shape[1:])

    def of_batch(number):
        return fn(split_batch(lax.dynamic_index_in_dim(full, number, axis=1, keepdims=False), mesh))

    def joined(y):
        return y.swapaxes(0, 1).reshape(-1, *y.shape[2:])

    if batches:
        pieces.append(jax.tree.map(joined, lax.map(of_batch, jnp.arange(batches))))
    if rest:
        last = examples[-rest:]
        if mesh is not None:  # examples of zeros, so that the devices divide them
            missing = -rest % mesh.shape["data"]
            last = split_batch(jnp.pad(last, [(0, missing)] + [(0, 0)] * (last.ndim - 1)), mesh)
        pieces.append(jax.tree.map(lambda y: y[:rest], fn(last)))
    return jax.tree.map(lambda *ys: jnp.concatenate(ys), *pieces)
