"""Evaluation of a network on many examples, one batch at a time to save memory."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from nnlab.data.batches import check_batch, shared_size
from nnlab.errors import InputError, check_count
from nnlab.training import models
from nnlab.training.epochs import split_batch
from nnlab.training.losses import cross_entropy
from nnlab.training.steps import (
    Batch,
    Loss,
    Metrics,
    State,
    accuracy,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """A compiled function `evaluate(state, (inputs, labels)) -> metrics` that knows its network.

    Attributes:
        model: what it evaluates.
        weights: the parameters of a state that it evaluates.
        program: the function, from `jax.jit`.
        with_outputs: the same to (metrics, outputs of the model), not yet compiled; None where the
            outputs of all examples together are not kept.
        loss: of outputs and labels.
    """

    model: nn.Module
    weights: Callable[[State], Any]
    program: Any
    with_outputs: Callable[[State, Batch], tuple[Metrics, Any]] | None = None
    loss: Loss = cross_entropy

    def __call__(self, state: State, data: Batch) -> Metrics:
        if not hasattr(state, "params"):
            kind = type(state).__name__
            raise InputError(f"state is a {kind}, expected what nnlab.training.init returns.")
        inputs, labels = check_batch(data)
        self.check_labels(state, inputs, labels)
        return self.program(state, data)

    def variables(self, state: State) -> dict[str, Any]:
        """Return the variables of the model that it evaluates."""
        found = {"params": self.weights(state), "batch_stats": state.batch_stats}
        return {name: tree for name, tree in found.items() if tree}

    @functools.cached_property
    def _check(self) -> Callable[[Any, Any, Any], None]:
        return models.label_check(self.model)

    def check_labels(self, state: State, inputs: Any, labels: Any) -> None:
        """Raise `InputError` if labels are none of the classes that the network tells apart.

        Only those are looked at that the cross-entropy takes, arrays of integers in memory.

        Args:
            state: what the network is evaluated at; only shapes matter.
            inputs: of the network, of which only shapes and dtypes matter.
            labels: those of any examples.
        """
        if self.loss is cross_entropy:
            self._check(self.variables(state), inputs, labels)


def evaluation(
    model: nn.Module,
    loss: Loss = cross_entropy,
    batch_size: int = 500,
    weights: Callable[[State], Any] = lambda state: state.params,
    *,
    metrics: Callable[[Any, Any], Metrics] = accuracy,
    mesh: Mesh | None = None,
) -> Evaluation:
    """Return `evaluate(state, (inputs, labels)) -> metrics`, compiled, over all examples.

    Inputs and labels are arrays [examples, ...] or any trees of them. The model runs in evaluation
    mode: BatchNorm uses its running statistics, dropout is off, and recurrent layers start from
    zeros.

    Args:
        model: called as `model(inputs, train=False)`.
        loss: `loss(outputs, labels)`, the mean over all examples, reported as "loss".
        batch_size: the number of examples whose layers are in memory at a time.
        weights: the parameters of a state to evaluate, such as their moving average.
        metrics: `metrics(outputs, labels)`, further named scalars, as in `train_step`.
        mesh: compute a part of each batch on each of its devices, as in `train_steps`.

    Raises:
        InputError: when `evaluate` is called, arrays differ in their number of examples, labels of
            the cross-entropy are none of the model's classes, or inputs are as for `train_step`.
    """

    def with_outputs(state: State, data: Batch) -> tuple[Metrics, Any]:
        shared_size(check_batch(data))
        variables = {"params": weights(state), "batch_stats": state.batch_stats}

        def apply(examples):
            return models.apply(model, variables, examples, train=False)

        outputs = in_batches(apply, data[0], batch_size, mesh=mesh)
        return {"loss": loss(outputs, data[1]), **metrics(outputs, data[1])}, outputs

    @jax.jit
    def evaluate(state: State, data: Batch) -> Metrics:
        return with_outputs(state, data)[0]

    return Evaluation(model, weights, evaluate, with_outputs, loss)


def in_batches(
    fn: Callable[[Any], Any],
    examples: Any,
    batch_size: int,
    *,
    mesh: Mesh | None = None,
) -> Any:
    """Return `fn(examples)`, computed `batch_size` examples at a time to save memory.

    `examples` and what `fn` returns are arrays [examples, ...] or any trees of them; `fn` must
    treat each example by itself. On a `mesh`, as in `train_steps`, each batch is split over the
    devices, its size rounded down to a multiple of their number. Examples that lie on every device,
    or are split over the devices in order, do not travel, except for an incomplete last batch.

    Raises:
        InputError: the arrays differ in their number of examples, or `batch_size` is no integer of
            at least 1.
    """
    check_count("batch_size", batch_size)
    if mesh is not None:
        devices = mesh.shape["data"]
        batch_size = max(batch_size // devices, 1) * devices
    size = shared_size(examples)
    batches, rest = divmod(size, batch_size)
    pieces = []
    # Batch i takes examples i, i + batches, i + 2 batches, …: on a mesh, as many from each device.
    full = jax.tree.map(
        lambda a: a[: size - rest].reshape(batch_size, batches, *a.shape[1:]), examples
    )

    def one_batch(number):
        def pick(a):
            return lax.dynamic_index_in_dim(a, number, axis=1, keepdims=False)

        return fn(split_batch(jax.tree.map(pick, full), mesh))

    def joined(y):
        return y.swapaxes(0, 1).reshape(-1, *y.shape[2:])

    if batches:
        pieces.append(jax.tree.map(joined, lax.map(one_batch, jnp.arange(batches))))
    if rest:
        last = jax.tree.map(lambda a: a[-rest:], examples)
        if mesh is not None:  # add examples of zeros until the devices divide them
            missing = -rest % mesh.shape["data"]
            last = jax.tree.map(
                lambda a: jnp.pad(a, [(0, missing)] + [(0, 0)] * (a.ndim - 1)), last
            )
            last = split_batch(last, mesh)
        pieces.append(jax.tree.map(lambda y: y[:rest], fn(last)))
    return jax.tree.map(lambda *ys: jnp.concatenate(ys), *pieces)
