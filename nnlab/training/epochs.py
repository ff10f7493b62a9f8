"""Many steps in one compiled program, over arrays in memory or over generated batches.

The order of the examples comes from `state.key` folded with the number of the epoch; a generated
batch comes from `state.key` folded with the step.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nnlab.data.batches import shared_size
from nnlab.errors import InputError, check_count
from nnlab.training.steps import (
    Batch,
    Metrics,
    State,
    Step,
)


def steps_per_epoch(data: Batch, batch_size: int) -> int:
    """Return the number of full batches in `data`, a tree of arrays [examples, ...].

    Raises:
        InputError: `data` does not fill one batch, its arrays differ in their number of examples,
            or `batch_size` is no integer of at least 1.
    """
    check_count("batch_size", batch_size)
    examples = shared_size(data)
    if batch_size > examples:
        raise InputError(f"batch_size must be at most the {examples} examples, not {batch_size}.")
    return examples // batch_size


def check_divides(devices: int, examples: int) -> None:
    """Raise `InputError` unless the devices get equal parts of the examples of a batch."""
    if examples % devices:
        raise InputError(f"batch_size must be a multiple of the {devices} devices, not {examples}.")


def check_nothing_carried(state: State) -> None:
    """Raise `InputError` if the state has a carry, which batches in no order cannot continue."""
    if state.carry:
        raise InputError(
            "a carried state needs batches that continue each other, as from"
            " in_memory(…, shuffle=False)."
        )


def train_steps(
    step: Step,
    batch_size: int,
    *,
    shuffle: bool = True,
    mesh: Mesh | None = None,
) -> Callable[[State, Batch, jax.Array | int], tuple[State, Metrics]]:
    """Return `run(state, (inputs, labels), count) -> (state, metrics)`, pure and not yet compiled.

    `run` takes up to `count` steps over arrays in memory, or trees of them. It stops at the end of
    the epoch, and before a step that would leave a number that is not finite. Metrics are
    [steps per epoch]; those of steps that were not tried are NaN, or -1 where they are integers.

    Each epoch draws the order of its examples from `state.key` and its number, and leaves out those
    that do not fill a last batch. Without `shuffle` examples keep their order, and a carried state
    starts each epoch from zeros.

    The count is an argument of the compiled program, so one program serves all counts, and an epoch
    cut into pieces anywhere gives the same bits as the whole.

    On a `mesh`, such as `nnlab.training.parallel.data_mesh()`, every device holds the state and all
    arrays and takes its part of a batch from its own copy, so no example travels between devices.
    The batches are the same as without a mesh.

    Raises:
        InputError: the devices do not divide the batch; or, when `run` is called, there are fewer
            examples than `batch_size`, arrays differ in their number of examples, or a carried
            state meets `shuffle`.
    """
    if mesh is not None:
        check_divides(mesh.shape["data"], batch_size)

    def run(state: State, data: Batch, count: jax.Array | int) -> tuple[State, Metrics]:
        steps = steps_per_epoch(data, batch_size)
        order = jnp.arange(shared_size(data))
        if shuffle:
            check_nothing_carried(state)
            key = jax.random.fold_in(order_key(state), state.step // steps)
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
    """Return `run(state, count) -> (state, metrics)`: `train_steps` on generated batches.

    Each step trains on `make(key)`, any pair of trees of arrays, with a key folded from `state.key`
    and the step, so no two batches are alike. `steps` of them are an epoch.

    Raises:
        InputError: when `run` is called, there is a carried state.
    """

    def run(state: State, count: jax.Array | int) -> tuple[State, Metrics]:
        check_nothing_carried(state)
        first = state.step - state.step % steps

        def batch(number: jax.Array) -> Batch:
            return make(jax.random.fold_in(order_key(state), first + number))

        return _steps(step, state, batch, steps, count)

    return run


def _steps(
    step: Step,
    state: State,
    batch: Callable[[jax.Array], Batch],
    steps: int,
    count: jax.Array | int,
) -> tuple[State, Metrics]:
    """Take up to `count` steps on `batch(number)`, with numbers 0 to `steps` - 1 in an epoch."""
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
    metrics = jax.tree.map(lambda m: jnp.full((steps, *m.shape), _untried(m.dtype)), shapes)
    return lax.while_loop(wanted, body, (first, jnp.array(True), state, metrics))[2:]


def _untried(dtype: Any) -> np.ndarray:
    return np.array(np.nan if jnp.issubdtype(dtype, jnp.inexact) else -1).astype(dtype)


def split_batch(examples: Any, mesh: Mesh | None) -> Any:
    """Split arrays [examples, ...] over the devices of a mesh, inside a compiled function."""
    if mesh is None:
        return examples
    return lax.with_sharding_constraint(examples, NamedSharding(mesh, PartitionSpec("data")))


@dataclasses.dataclass(frozen=True, eq=False)
class Epoch:
    """A compiled function `epoch(state, (inputs, labels)) -> (state, metrics)`.

    Attributes:
        program: it, from `jax.jit`.
        check: `check(state, (inputs, labels))`, called before it.
    """

    program: Any
    check: Callable[[State, Batch], None]

    def __call__(self, state: State, data: Batch) -> tuple[State, Metrics]:
        self.check(state, data)
        return self.program(state, data)

    def lower(self, state: State, data: Batch) -> jax.stages.Lowered:
        """As of a function of `jax.jit`."""
        return self.program.lower(state, data)


def train_epoch(step: Step, batch_size: int) -> Epoch:
    """Return `epoch(state, (inputs, labels)) -> (state, metrics)`, one pass, compiled.

    Metrics are [steps per epoch]. A state in the middle of an epoch is taken to that epoch's end.

    Raises:
        InputError: `batch_size` is below 1; or, when it is called, as for `train_steps`, or labels
            of the cross-entropy are none of the model's classes.
    """
    check_count("batch_size", batch_size)
    run = train_steps(step, batch_size)
    program = jax.jit(lambda state, data: run(state, data, steps_per_epoch(data, batch_size)))
    return Epoch(program, getattr(step, "check", lambda state, data: None))


def order_key(state: State) -> jax.Array:
    """Return the key from which orders of examples are folded."""
    return jax.random.fold_in(state.key, 0)
