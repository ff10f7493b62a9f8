"""A network's answers to examples that it is not trained on, a batch at a time."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from nnlab.data.batches import shared_size
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
    """Return `evaluate(state, (inputs, labels)) -> {"loss", ...}` over all examples.

    Inputs and labels are arrays [examples, ...] or any trees of them. The model runs in evaluation
    mode: BatchNorm uses its running statistics, dropout is off, and recurrent layers start at
    zeros. `weights` says which parameters of the state to use, such as their moving average;
    beside the loss there are the `metrics`, as in `train_step`. On a `mesh`, as in `train_steps`,
    every device computes its part of each batch.

    Raises:
        InputError: on the call, for arrays of inputs that differ in their number of examples.
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
    fn: Callable[[Any], Any],
    examples: Any,
    batch_size: int,
    *,
    mesh: Mesh | None = None,
) -> Any:
    """Return `fn(examples)`, computed for `batch_size` of the examples at a time to save memory.

    `examples` and what `fn` returns are arrays [examples, ...] or any trees of them; `fn` must
    treat each example alone. On a `mesh`, as in `train_steps`, a batch is split over the devices,
    its size rounded down to a multiple of their number; examples that lie on every device, or are
    split over the devices in order, stay where they are, but for those that fill no batch.

    Raises:
        InputError: the arrays differ in their number of examples.
    """
    if mesh is not None:
        devices = mesh.shape["data"]
        batch_size = max(batch_size // devices, 1) * devices
    size = shared_size(examples)
    batches, rest = divmod(size, batch_size)
    pieces = []
    # Batch i takes examples i, i + batches, i + 2 batches, …: on a mesh, as many of each device.
    full = jax.tree.map(
        lambda a: a[: size - rest].reshape(batch_size, batches, *a.shape[1:]), examples
    )

    def of_batch(number):
        def pick(a):
            return lax.dynamic_index_in_dim(a, number, axis=1, keepdims=False)

        return fn(split_batch(jax.tree.map(pick, full), mesh))

    def joined(y):
        return y.swapaxes(0, 1).reshape(-1, *y.shape[2:])

    if batches:
        pieces.append(jax.tree.map(joined, lax.map(of_batch, jnp.arange(batches))))
    if rest:
        last = jax.tree.map(lambda a: a[-rest:], examples)
        if mesh is not None:  # examples of zeros, so that the devices divide them
            missing = -rest % mesh.shape["data"]
            last = jax.tree.map(
                lambda a: jnp.pad(a, [(0, missing)] + [(0, 0)] * (a.ndim - 1)), last
            )
            last = split_batch(last, mesh)
        pieces.append(jax.tree.map(lambda y: y[:rest], fn(last)))
    return jax.tree.map(lambda *ys: jnp.concatenate(ys), *pieces)
