"""Feeds: the data of a training loop, from memory, from a generator or from a stream.

A feed knows how many steps an epoch has, and compiles a step together with its data into
`advance(state, count) -> (state, metrics)`. That takes up to `count` steps from the state's own
position, which is `state.step`: a resumed state needs nothing else. It stops at the end of an epoch
and before a step that would leave a number that is not finite. Metrics are [steps tried].

On a mesh the state lies on all devices, and each takes its part of a batch. The batches are the
same for any number of devices and processes.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from nnlab.data.batches import check_batch, shared_size
from nnlab.data.stream import DeviceBatches, Stream, to_device
from nnlab.errors import InputError, check_count
from nnlab.training.epochs import (
    check_divides,
    check_nothing_carried,
    generated_steps,
    steps_per_epoch,
    train_steps,
)
from nnlab.training.parallel import (
    AXIS,
    BY_IMAGE,
    EVERYWHERE,
    compiler_options,
    replicate,
)
from nnlab.training.steps import Batch, State, Step

Advance = Callable[[State, int], tuple[State, dict[str, np.ndarray]]]


class Feed(NamedTuple):
    """The data that `nnlab.runs.fit` trains on.

    Attributes:
        batch_size: examples per step, of all devices together.
        steps_per_epoch: full batches per epoch.
        compile: `with compile(step, state, mesh) as advance`; only the step, shapes and placement
            of the state matter. `advance` reuses the memory of the state that it is given.
        first: reads some examples, as a batch has them; None where there is no such way.
        sample: `sample(batches)`, inputs of so many batches or as many as there are, drawn without
            regard to their order, always the same; None where there is no such way.
        labels: those of all examples; None where they are not in memory.
    """

    batch_size: int
    steps_per_epoch: int
    compile: Callable[[Step, State, Mesh | None], contextlib.AbstractContextManager[Advance]]
    first: Callable[[], Batch] | None = None
    sample: Callable[[int], Any] | None = None
    labels: Any = None


def in_memory(data: Batch, batch_size: int, *, shuffle: bool = True) -> Feed:
    """Train on arrays (inputs, labels), or trees of them, that fit into every device's memory.

    One program takes many steps (`train_steps`). Without `shuffle` every epoch takes the examples
    in their order, as a state that is carried from batch to batch needs it.

    Raises:
        InputError: the batch is larger than the data, or the arrays differ in their number of
            examples; or, on compilation, the devices of the mesh do not divide the batch, or a
            carried state meets `shuffle`.
    """
    check_batch(data)
    steps = steps_per_epoch(data, batch_size)

    @contextlib.contextmanager
    def compile(step: Step, state: State, mesh: Mesh | None) -> Iterator[Advance]:
        # Once, where each call would move NumPy arrays anew.
        arrays = jax.device_put(data) if mesh is None else replicate(data, mesh)
        program = train_steps(step, batch_size, shuffle=shuffle, mesh=mesh)
        run = jit_step(program, mesh).lower(state, arrays, 1).compile()
        yield _advance(lambda state, count: run(state, arrays, count), steps)

    def sample(batches: int) -> Any:
        count = min(batches, steps) * batch_size
        chosen = np.random.default_rng(0).permutation(shared_size(data))[:count]
        return jax.tree.map(lambda a: a[chosen], data[0])

    def first() -> Batch:
        return jax.tree.map(lambda a: a[:batch_size], data)

    return Feed(batch_size, steps, compile, first, sample, data[1])


def generated(make: Callable[[jax.Array], Batch], steps_per_epoch: int) -> Feed:
    """Train on batches that the training program itself draws (`generated_steps`).

    Args:
        make: `make(key) -> (inputs, labels)`, a pure function to arrays or trees of them, always of
            the same shapes.
        steps_per_epoch: the number of steps that count as an epoch.

    Raises:
        InputError: `steps_per_epoch` is below 1, or the arrays of a batch differ in their number of
            examples; or, on compilation, there is a mesh or a carried state.
    """
    check_count("steps_per_epoch", steps_per_epoch)
    batch_size = shared_size(jax.eval_shape(make, jax.random.key(0)))

    @contextlib.contextmanager
    def compile(step: Step, state: State, mesh: Mesh | None) -> Iterator[Advance]:
        if mesh is not None:
            raise InputError("generated batches train on one device, not on a mesh.")
        run = jit_step(generated_steps(step, make, steps_per_epoch), None).lower(state, 1).compile()
        yield _advance(run, steps_per_epoch)

    def sample(batches: int) -> Any:
        return _joined([make(key)[0] for key in jax.random.split(jax.random.key(0), batches)])

    return Feed(batch_size, steps_per_epoch, compile, lambda: make(jax.random.key(0)), sample)


def _advance(run: Callable[[State, int], tuple[State, Any]], steps: int) -> Advance:
    """Return `run` with the metrics of the steps that it tried in place of those of an epoch."""

    def advance(state: State, count: int) -> tuple[State, dict[str, np.ndarray]]:
        before = int(state.step)
        state, metrics = run(state, count)
        first, made = before % steps, int(state.step) - before
        refused = made < min(count, steps - first)  # a step that was not finite has metrics too
        last = first + made + refused
        return state, {name: np.asarray(each)[first:last] for name, each in metrics.items()}

    return advance


def streamed(stream: Stream) -> Feed:
    """Train on batches that are read while the step before computes; each step is one program.

    Raises:
        InputError: the batch is larger than the data; or, on compilation, the devices of the mesh
            do not divide the batch, or there is a carried state.
    """
    steps, alone = stream.steps_per_epoch, dataclasses.replace(stream, workers=0)

    def first() -> Batch:
        with contextlib.closing(to_device(alone.batches(0), None)) as batches:
            return next(batches)

    def sample(batches: int) -> Any:
        whole = dataclasses.replace(alone, process=0, processes=1)
        with contextlib.closing(whole.batches(0)) as read:
            return _joined([next(read)[0] for _ in range(min(batches, steps))])

    @contextlib.contextmanager
    def compile(step: Step, state: State, mesh: Mesh | None) -> Iterator[Advance]:
        check_nothing_carried(state)
        if mesh is not None:
            check_divides(mesh.shape[AXIS], stream.batch_size)
        sharding = None if mesh is None else NamedSharding(mesh, BY_IMAGE)

        def reading(stream: Stream) -> contextlib.closing[DeviceBatches]:
            return contextlib.closing(to_device(stream.batches(int(state.step)), sharding))

        # Workers start after compilation, during which a signal would have to wait.
        with reading(alone) as batches:
            run = jit_step(step, mesh).lower(state, next(batches)).compile()
        with reading(stream) as batches:
            failed: list[Exception] = []

            def advance(state: State, count: int) -> tuple[State, dict[str, np.ndarray]]:
                made = []
                for _ in range(min(count, steps - int(state.step) % steps)):
                    if failed:
                        raise failed[0]
                    try:
                        batch = next(batches)
                    except Exception as error:
                        failed.append(error)
                        if made:  # the caller gets the steps before, and the error by the next call
                            break
                        raise
                    state, metrics = run(state, batch)
                    made.append(metrics)
                    if metrics.get("nonfinite", -1) >= 0:
                        break
                return state, {name: np.array([m[name] for m in made]) for name in made[0]}

            yield advance

    return Feed(stream.batch_size, steps, compile, first, sample)


def _joined(batches: list[Any]) -> Any:
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *batches)


def jit_step(program: Callable, mesh: Mesh | None) -> Any:
    """Return `program` by `jax.jit`, which reuses the state's memory and keeps its placement."""
    everywhere = None if mesh is None else NamedSharding(mesh, EVERYWHERE)
    return jax.jit(
        program,
        donate_argnums=0,
        out_shardings=everywhere,
        compiler_options=compiler_options(),
    )
