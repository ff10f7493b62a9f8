"""What a training loop trains on: data, compiled together with a step.

A feed says how many steps an epoch has, and compiles a step into `advance(state, count) ->
(state, metrics)`, which takes `count` steps from wherever the state stands, fewer where the epoch
ends or something is not finite, and returns the metrics of the steps that it made, [steps made].
The position in the data is in `state.step`, so a resumed state needs nothing else.

With a mesh the state lies on all of its devices, and each takes its part of a batch. The batches
are the same on any number of devices and processes.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from nnlab.data.batches import shared_size
from nnlab.data.stream import DeviceBatches, Stream, to_device
from nnlab.errors import InputError
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
    """Data for `nnlab.runs.fit`.

    Attributes:
        batch_size: examples a step, of all devices together.
        steps_per_epoch: full batches of the data.
        compile: `with compile(step, state, mesh) as advance`; of the state only step, shapes and
            placement matter. `advance` gives away the memory of the state that it gets.
    """

    batch_size: int
    steps_per_epoch: int
    compile: Callable[[Step, State, Mesh | None], contextlib.AbstractContextManager[Advance]]


def in_memory(data: Batch, batch_size: int, *, shuffle: bool = True) -> Feed:
    """Train on arrays (inputs, labels), or trees of them, by steps inside one program.

    They lie whole on every device, and `train_steps` picks the batches.

    Without `shuffle` every epoch takes the examples in their order, for a state that is carried
    from each batch to the next.

    Raises:
        InputError: the batch is larger than the data, the arrays differ in their number of
            examples, or, on compilation, the devices of the mesh do not divide the batch or a state
            is carried in spite of `shuffle`.
    """
    steps = steps_per_epoch(data, batch_size)

    @contextlib.contextmanager
    def compile(step: Step, state: State, mesh: Mesh | None) -> Iterator[Advance]:
        arrays = data if mesh is None else replicate(data, mesh)
        program = train_steps(step, batch_size, shuffle=shuffle, mesh=mesh)
        run = _jit(program, mesh).lower(state, arrays, 1).compile()
        yield _advance(lambda state, count: run(state, arrays, count), steps)

    return Feed(batch_size, steps, compile)


def generated(make: Callable[[jax.Array], Batch], steps_per_epoch: int) -> Feed:
    """Train on batches that are drawn as they are needed, inside one program, `generated_steps`.

    Args:
        make: `make(key) -> (inputs, labels)`, arrays or trees of them, pure, always of the same
            shapes.
        steps_per_epoch: the number of steps after which the training is evaluated.

    Raises:
        InputError: `steps_per_epoch` is below 1, the arrays of a batch differ in their number of
            examples, or, on compilation, there is a mesh or a carried state.
    """
    if steps_per_epoch < 1:
        raise InputError(f"steps_per_epoch must be at least 1, not {steps_per_epoch}.")
    batch_size = shared_size(jax.eval_shape(make, jax.random.key(0)))

    @contextlib.contextmanager
    def compile(step: Step, state: State, mesh: Mesh | None) -> Iterator[Advance]:
        if mesh is not None:
            raise InputError("generated batches are made on one device, not on a mesh.")
        run = _jit(generated_steps(step, make, steps_per_epoch), None).lower(state, 1).compile()
        yield _advance(run, steps_per_epoch)

    return Feed(batch_size, steps_per_epoch, compile)


def _advance(run: Callable[[State, int], tuple[State, Any]], steps: int) -> Advance:
    """`run`, whose metrics are those of an epoch, with the metrics of its steps alone."""

    def advance(state: State, count: int) -> tuple[State, dict[str, np.ndarray]]:
        before = int(state.step)
        state, metrics = run(state, count)
        first, made = before % steps, int(state.step) - before
        refused = made < min(count, steps - first)  # the metrics of that step are there too
        last = first + made + refused
        return state, {name: np.asarray(each)[first:last] for name, each in metrics.items()}

    return advance


def streamed(stream: Stream) -> Feed:
    """Train on batches that are read while the step before them computes; a step is a program.

    Raises:
        InputError: the batch is larger than the data, or, on compilation, the devices of the mesh
            do not divide it or there is a carried state.
    """
    steps = stream.steps_per_epoch

    @contextlib.contextmanager
    def compile(step: Step, state: State, mesh: Mesh | None) -> Iterator[Advance]:
        check_nothing_carried(state)
        if mesh is not None:
            check_divides(mesh.shape[AXIS], stream.batch_size)
        sharding = None if mesh is None else NamedSharding(mesh, BY_IMAGE)

        def reading(stream: Stream) -> contextlib.closing[DeviceBatches]:
            return contextlib.closing(to_device(stream.batches(int(state.step)), sharding))

        # Workers start with the first step, not while the compiler keeps signals waiting.
        with reading(dataclasses.replace(stream, workers=0)) as batches:
            run = _jit(step, mesh).lower(state, next(batches)).compile()
        with reading(stream) as batches:

            def advance(state: State, count: int) -> tuple[State, dict[str, np.ndarray]]:
                made = []
                for _ in range(min(count, steps - int(state.step) % steps)):
                    state, metrics = run(state, next(batches))
                    made.append(metrics)
                    if metrics.get("nonfinite", -1) >= 0:
                        break
                return state, {name: np.array([m[name] for m in made]) for name in made[0]}

            yield advance

    return Feed(stream.batch_size, steps, compile)


def _jit(program: Callable, mesh: Mesh | None) -> Any:
    """Compiled with a result that lies where the state lies, in whose memory it may be."""
    everywhere = None if mesh is None else NamedSharding(mesh, EVERYWHERE)
    return jax.jit(
        program,
        donate_argnums=0,
        out_shardings=everywhere,
        compiler_options=compiler_options(),
    )
