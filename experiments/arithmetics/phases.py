"""Training in two phases, such as a warm-up in float32 and then posits.

The phases share one state: parameters of the same names and shapes, and an optimiser state of the
same structure (`nnlab.optim.rounded` adds nothing to it). So a training in two phases is one run
with one schedule, and its checkpoints resume in either phase.

    first, then = LeNet5(arithmetic=in_format()), LeNet5(arithmetic=POSIT8)
    step = after_warm_up(100, train_step(first, sgd), train_step(then, rounded(sgd, …)))

References:
    Lu et al., Training deep neural networks using posit number system, 2019,
    https://arxiv.org/abs/1909.03831, whose first epochs are in float32.
"""

from collections.abc import Callable
from typing import TypeVar

from jax import lax

from nnlab.training.steps import Batch, State

Result = TypeVar("Result")
Phase = Callable[[State, Batch], Result]


def after_warm_up(steps: int, warm_up: Phase[Result], then: Phase[Result]) -> Phase[Result]:
    """Return a function that is `warm_up(state, batch)` up to step `steps`, and `then` from it on.

    Args:
        steps: how many steps the warm-up has, at least 0.
        warm_up, then: both steps of `nnlab.training.train_step`, or both evaluations of
            `nnlab.training.evaluation`. After the last step of the warm-up, the network of the
            next phase is evaluated.
    """

    def phase(state: State, batch: Batch) -> Result:
        return lax.cond(state.step < steps, warm_up, then, state, batch)

    return phase
