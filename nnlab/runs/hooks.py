"""Functions of the caller's that `nnlab.runs.fit` calls after epochs and steps.

    def until_good(moment):
        return moment.figures["test_accuracy"] > 0.99

    runs.fit(…, on_epoch=until_good, on_step=print, step_interval=100)

They run in Python, between two compiled programs, and change no bit of the training. A compiled
program takes as many steps as fit into a second; with `on_step` it takes at most `step_interval`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nnlab.errors import InputError, check_count
from nnlab.runs import hosts
from nnlab.runs.under_way import Training
from nnlab.training.steps import State


class Moment(NamedTuple):
    """What a hook is told.

    Attributes:
        network: the name that `fit` was given.
        epoch: the number of finished epochs.
        step: the number of steps taken.
        figures: after an epoch, all that it measured, such as `train_loss` and `test_accuracy`;
            after a step, the metrics of that step, such as `loss`.
        state: the state, whose memory the next step reuses; copy what shall outlive the call
            (`jax.device_get`).
    """

    network: str
    epoch: int
    step: int
    figures: dict[str, float]
    state: State


Hook = Callable[[Moment], bool | None]  # True asks the training to stop


class Hooks:
    """The hooks of one training.

    Raises:
        InputError: one is not callable, or `step_interval` is no integer of at least 1.
    """

    def __init__(
        self,
        on_epoch: Hook | Sequence[Hook],
        on_step: Hook | Sequence[Hook],
        step_interval: int,
    ):
        check_count("step_interval", step_interval)
        self._epoch = _all_of("on_epoch", on_epoch)
        self._step = _all_of("on_step", on_step)
        self._interval = step_interval

    def __bool__(self) -> bool:
        return bool(self._epoch or self._step)

    def cut(self, count: int, step: int) -> int:
        """Return how many of `count` steps there are up to the next call of `on_step`."""
        return min(count, self._interval - step % self._interval) if self._step else count

    def after_step(self, now: Training) -> None:
        """Call those of steps, where it is their turn."""
        if self._step and now.step % self._interval == 0:
            _call("on_step", self._step, now, now.latest)

    def after_epoch(self, now: Training) -> None:
        """Call those of epochs."""
        if self._epoch:
            figures = {key: values[-1] for key, values in now.history.items()}
            _call("on_epoch", self._epoch, now, figures)


def _all_of(name: str, hooks: Hook | Sequence[Hook]) -> tuple[Hook, ...]:
    found: Any = tuple(hooks) if isinstance(hooks, list | tuple) else (hooks,)
    for hook in found:
        if not callable(hook):
            raise InputError(f"{name} must be functions of a moment, not {hook!r:.120}.")
    return found


def _call(name: str, hooks: tuple[Hook, ...], now: Training, figures: dict[str, float]) -> None:
    """Call all of them; note whether one, in any process, wants the training to stop."""
    epoch = len(now.history.get("seconds", []))
    moment = Moment(now.name, epoch, now.step, figures, now.state)
    wanted, failure = 0, None
    try:
        for hook in hooks:
            wanted |= _answer(name, hook(moment))
    except Exception as error:
        failure = error
    outcome = hosts.greatest(wanted if failure is None else 2)
    now.stopped |= outcome == 1
    if outcome == 2:
        error = failure or RuntimeError(f"{name} failed in another process.")
        now.keep_after(error)
        raise error


def _answer(name: str, answer: Any) -> bool:
    """Refuse numbers and the like, which a short function returns without meaning it."""
    if answer is None or isinstance(answer, bool):
        return bool(answer)
    if np.shape(answer) == () and np.asarray(answer).dtype.kind == "b":
        return bool(answer)
    raise InputError(
        f"{name} must return True to stop, or else False or None, not {answer!r:.120}."
    )
