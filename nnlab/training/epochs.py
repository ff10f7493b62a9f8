"""An epoch of steps as one program: over arrays in memory, or over batches that are drawn.

The order of the examples, and the examples themselves where they are drawn, come from `state.key`
folded with the epoch or the step.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nnlab.data.batches import shared_size
from nnlab.errors import InputError
from nnlab.training.steps import (
    Batch,
    Metrics,
    State,
    Step,
)


def steps_per_epoch(data: Batch, batch_size: int) -> int:
    """Return the number of full batches in `data`, a tree of arrays [examples, ...].

    Raises:
        InputError: there is not one, or the arrays differ in their number of examples.
    """
    examples = shared_size(data)
    if batch_size > examples:
        raise InputError(f"--batch-size must be at most the {examples} examples, not {batch_size}.")
    return examples // batch_size


def check_divides(devices: int, examples: int) -> None:
    """Raises `InputError` unless the examples of a batch make equal parts for the devices."""
    if examples % devices:
        raise InputError(
            f"--batch-size must be a multiple of the {devices} devices, not {examples}."
        )


def check_nothing_carried(state: State) -> None:
    """Raises `InputError` for a state with a carry, where batches are in no order."""
    if state.carry:
        raise InputError(
            "a carried state needs batches that go on from one another, as of"
            " in_memory(…, shuffle=False)."
        )


def train_steps(
    step: Step,
    batch_size: int,
    *,
    shuffle: bool = True,
    mesh: Mesh | None = None,
) -> Callable[[State, Batch, jax.Array | int], tuple[State, Metrics]]:
    """Return `run(state, (inputs, labels), count) -> (state, metrics)`, pure and unjitted.

    It takes `count` steps over arrays in memory, or trees of them, fewer where the epoch ends, and
    stops before a step that would leave something not finite. The examples of an epoch come in an
    order drawn from `state.key` and the number of the epoch; those that do not fill a last batch
    are left out, others in every epoch. Without `shuffle` they come in their order, and a state
    that is carried from batch to batch starts an epoch with zeros. Metrics are [steps an epoch],
    filled in at the steps that were made.

    The count is a number in the compiled program, not in its structure, so one program serves all
    counts: an epoch cut in pieces anywhere gives the same bits as the whole.

    With a `mesh`, as by `nnlab.training.parallel.data_mesh`, state and arrays lie on every device,
    and each takes its part of a batch from its own copy, so that no example travels. The batches
    are those without a mesh.

    Raises:
        InputError: on the call, for fewer examples than `batch_size`, arrays that differ in their
            number of examples, or a carried state and `shuffle`; or at once for a batch that the
            devices do not divide.
    """
    if mesh is not None:
        check_divides(mesh.shape["data"], batch_size)

    def run(state: State, data: Batch, count: jax.Array | int) -> tuple[State, Metrics]:
        steps = steps_per_epoch(data, batch_size)
        order = jnp.arange(shared_size(data))
        if shuffle:
            check_nothing_carried(state)
            key = jax.random.fold_in(_order_key(state), state.step // steps)
            order = jax.random.permutation(key, order)
        order = order[: steps * batch_size].reshape(steps, batch_size)

        def batch(number: jax.Array) -> Batch:
            chosen = split_batch(order[number], mesh)
            return jax.tree.map(lambda array: split_batch(array[chosen], mesh), data)

        return _steps(step, state, batch, steps, count)

    return run


def generated_steps(
    step: Step, make: Callable[[jax.Array], Batch], steps: int
) -> Callable[[State, jax.Array | int], tuple[State, Metrics]]:
    """Return `run(state, count) -> (state, metrics)`: `train_steps` on batches that are drawn.

    The batch of a step is `make(key)`, any tree of arrays, from a key folded from `state.key` and
    the step, so that no two are alike; `steps` of them make an epoch.

    Raises:
        InputError: on the call, for a carried state.
    """

    def run(state: State, count: jax.Array | int) -> tuple[State, Metrics]:
        check_nothing_carried(state)
        first = state.step - state.step % steps

        def batch(number: jax.Array) -> Batch:
            return make(jax.random.fold_in(_order_key(state), first + number))

        return _steps(step, state, batch, steps, count)

    return run


def _steps(
    step: Step,
    state: State,
    batch: Callable[[jax.Array], Batch],
    steps: int,
    count: jax.Array | int,
) -> tuple[State, Metrics]:
    """Up to `count` steps on `batch(number)`, number from 0 to `steps` - 1 within an epoch."""
    first = state.step % steps
    last = jnp.minimum(first + count, steps)

    def body(loop):
        number, _, state, metrics = loop
        if state.carry:
            fresh = jax.tree.map(lambda leaf: jnp.where(number == 0, 0, leaf), state.carry)
            state = state._replace(carry=fresh)
        state, new = step(state, batch(number))
        metrics = jax.tree.map(lambda all, one: all.at[number].set(one), metrics, new)
        return number + 1, new.get("nonfinite", -1) < 0, state, metrics

    def wanted(loop):
        number, finite, _, _ = loop
        return (number < last) & finite

    shapes = jax.eval_shape(lambda state: step(state, batch(jnp.array(0))), state)[1]
    metrics = jax.tree.map(lambda m: jnp.zeros((steps, *m.shape), m.dtype), shapes)
    return lax.while_loop(wanted, body, (first, jnp.array(True), state, metrics))[2:]


def split_batch(examples: Any, mesh: Mesh | None) -> Any:
    """Split a tree of arrays [examples, ...] over the devices of a mesh, in a compiled function."""
    if mesh is None:
        return examples
    return lax.with_sharding_constraint(examples, NamedSharding(mesh, PartitionSpec("data")))


def train_epoch(step: Step, batch_size: int) -> Step:
    """Return `epoch(state, (inputs, labels))`: one pass by `train_steps`, one compiled program.

    Metrics are [steps]. From a state within an epoch it goes to that epoch's end.
    """
    run = train_steps(step, batch_size)
    return jax.jit(lambda state, data: run(state, data, steps_per_epoch(data, batch_size)))


def _order_key(state: State) -> jax.Array:
    return jax.random.fold_in(state.key, 0)
