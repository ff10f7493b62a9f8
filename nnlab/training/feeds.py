"""What a training loop trains on: data, compiled together with a step.

A feed says how many steps an epoch has, and compiles a step into `advance(state, count) ->
(state, metrics)`, which takes `count` steps from wherever the state stands, fewer where the epoch
ends or something is not finite, and returns the metrics of the steps that it made, [steps made].
The position in the data is in `state.step`, so a resumed state needs nothing else.

A mesh, where one is given, has an axis "data" (`nnlab.training.parallel`); the state lies on all of
its devices, and each takes its part of a batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from nnlab.training.steps import Batch, Metrics, State, steps_per_epoch, train_steps

Step = Callable[[State, Batch], tuple[State, Metrics]]
Advance = Callable[[State, int], tuple[State, dict[str, np.ndarray]]]


class Feed(NamedTuple):
    """Data for `nnlab.training.fit`.

    Attributes:
        batch_size: images a step.
        steps_per_epoch: full batches of the data.
        compile: `compile(step, state) -> advance`; of the state only shapes and placement matter.
            `advance` gives away the memory of the state that it gets.
    """

    batch_size: int
    steps_per_epoch: int
    compile: Callable[[Step, State], Advance]


def in_memory(data: Batch, batch_size: int) -> Feed:
    """Arrays (images, labels) on the device; steps run inside one program, `train_steps`.

    Raises:
        InputError: the batch is larger than the data.
    """
    steps = steps_per_epoch(data, batch_size)

    def compile(step: Step, state: State) -> Advance:
        program = jax.jit(train_steps(step, batch_size), donate_argnums=0)
        run = program.lower(state, data, 1).compile()

        def advance(state: State, count: int) -> tuple[State, dict[str, np.ndarray]]:
            before = int(state.step)
            state, metrics = run(state, data, count)
            first, made = before % steps, int(state.step) - before
            refused = made < min(count, steps - first)  # the metrics of that step are there too
            last = first + made + refused
            return state, {name: np.asarray(each)[first:last] for name, each in metrics.items()}

        return advance

    return Feed(batch_size, steps, compile)
