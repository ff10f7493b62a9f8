"""A training under way: what `nnlab.runs.fit` does to it between signals and checkpoints."""

import dataclasses
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.early_stopping import EarlyStopping
from jax.sharding import Mesh

from nnlab.errors import DivergedError, InputError
from nnlab.runs import hosts
from nnlab.runs.checkpoints import Checkpoints
from nnlab.runs.evaluating import Examination, Outcome
from nnlab.runs.run_folder import RunFolder
from nnlab.training.feeds import Advance, Feed
from nnlab.training.parallel import replicate
from nnlab.training.steps import State, Step, leaf_name

History = dict[str, list[float]]
Score = Callable[[dict[str, float]], float]

_LABELS = ", as it is if a label is none of the classes"


class Training:
    """A training under way: its state, and all else that a checkpoint holds.

    Attributes:
        history: what each finished epoch measured.
        sums: the metrics of the current epoch, summed over its steps.
        goes_by: the set that each epoch is evaluated on, "test" or "validation".
        latest: the metrics of the last step.
        stopped: whether a hook wants the training to stop (`nnlab.runs.hooks`).
    """

    def __init__(
        self,
        name: str,
        state: State,
        steps_per_epoch: int,
        checkpoints: Checkpoints,
        folder: RunFolder,
        score: Score,
        mesh: Mesh | None,
        goes_by: str = "test",
        learning_rate: optax.Schedule | None = None,
    ):
        """Start from the newest checkpoint, or from `state` if there is none."""
        # A copy, because training donates the memory of its states.
        fresh = jax.tree.map(jnp.copy, state), {"history": {}, "sums": {}}
        state, about = checkpoints.newest(like=state) or fresh
        self.state = state if mesh is None else replicate(state, mesh)
        self.history: History = about["history"]
        self.sums: dict[str, float] = about["sums"]
        self.latest: dict[str, float] = {}
        self.stopped = bool(about.get("stopped"))
        self.name, self.steps_per_epoch, self.score = name, steps_per_epoch, score
        self.checkpoints, self.folder = checkpoints, folder
        self.goes_by, self._schedule = goes_by, learning_rate
        if self.history and f"{goes_by}_loss" not in self.history:
            other = "without a validation set" if goes_by == "validation" else "on a validation set"
            raise InputError(
                f"{folder.path} holds a training of {name} {other}, which only the same can resume."
            )

    @property
    def step(self) -> int:
        return int(self.state.step)

    @property
    def scores(self) -> list[float]:
        """The score of every finished epoch."""
        epochs = len(self.history.get("seconds", []))
        return [self.score(self._evaluated(epoch)) for epoch in range(1, epochs + 1)]

    def _evaluated(self, epoch: int) -> dict[str, float]:
        """What the evaluation of an epoch gave, from 1."""
        before = f"{self.goes_by}_"
        found = {
            key.removeprefix(before): v for key, v in self.history.items() if key.startswith(before)
        }
        return {key: values[epoch - 1] for key, values in found.items()}

    @property
    def best_epoch(self) -> int:
        """The first epoch with the best score, from 1; 0 before the first has ended."""
        scores = self.scores
        return 1 + int(np.argmax(scores)) if scores else 0

    @property
    def last_epoch_end(self) -> int:
        """The step of the last evaluation, up to which there are metrics."""
        return self.steps_per_epoch * len(self.history.get("seconds", []))

    @property
    def within_epoch(self) -> bool:
        """Whether the epoch has steps left; otherwise it is yet to be evaluated."""
        return self.step < self.last_epoch_end + self.steps_per_epoch

    def ended(self, epochs: int, patience: int | None) -> bool:
        scores = self.scores
        if self.stopped and self.within_epoch:  # an epoch that is complete is evaluated first
            return True
        stopping = EarlyStopping(patience=epochs if patience is None else patience)
        for score in scores:
            stopping = stopping.update(-score)  # Flax stops when a loss no longer falls
        return len(scores) >= epochs or stopping.should_stop

    def diagnose(self, step: Step, train: Feed, epochs: int) -> None:
        """Print what of the network cannot learn."""
        if hosts.is_writer() and train.first is not None and hasattr(step, "diagnose"):
            variables = jax.device_get(
                {"params": self.state.params, "batch_stats": self.state.batch_stats}
            )
            look: Any = step
            steps = epochs * self.steps_per_epoch
            scale = {"loss_scale": float(s.scale)} if (s := self.state.loss_scale) else {}
            for fault in look.diagnose(variables, train.first(), steps=steps, **scale):
                print(f"{self.name}: {fault}", file=sys.stderr, flush=True)

    def train(self, advance: Advance, count: int) -> float:
        """Take up to `count` steps, and return the seconds that one took."""
        start = time.perf_counter()
        try:
            self.state, metrics = advance(self.state, count)
        except Exception as error:
            arrays = [leaf for leaf in jax.tree.leaves(self.state) if isinstance(leaf, jax.Array)]
            if any(array.is_deleted() for array in arrays):
                raise  # the step has already reused their memory
            self.keep_after(error)
            raise
        made = len(metrics["loss"])
        seconds = time.perf_counter() - start
        leaf = metrics.pop("nonfinite", np.array([-1]))[-1]
        # A step that `optax.apply_if_finite` has skipped may have a loss that is not finite.
        counted = np.isfinite(metrics["loss"])
        counted[-1:] &= leaf < 0  # the step that was not taken
        for key, values in metrics.items():
            self.sums[key] = sum(values[counted].tolist(), self.sums.get(key, 0.0))
        self.sums["steps"] = self.sums.get("steps", 0) + int(counted.sum())
        self.sums["seconds"] = self.sums.get("seconds", 0.0) + seconds
        if leaf >= 0:
            name = leaf_name(self.state, leaf)
            what = f"{name} of {self.name} is not finite at step {self.step + 1}"
            if name == "loss":  # which is the first thing that a label touches
                what += _LABELS
            raise self._diverged(what)
        self.latest = {key: float(values[-1]) for key, values in metrics.items()}
        return seconds / made

    def figures(self) -> dict[str, float]:
        """What the progress line shows of the epoch so far."""
        means = self._means()
        figures = {"epoch": self.step / self.steps_per_epoch, "loss": means["loss"]}
        if "accuracy" in means:
            accuracies = self.history.get(f"{self.goes_by}_accuracy", [means["accuracy"]])
            figures["accuracy"] = accuracies[-1]
        return figures

    def check_finite(self, tested: dict[str, float], on: str) -> None:
        """Raise `DivergedError` unless the loss of an evaluation is finite."""
        if not math.isfinite(tested["loss"]):
            what = f"The {on} loss of {self.name} is {tested['loss']} after step {self.step}"
            raise self._diverged(what + _LABELS if math.isnan(tested["loss"]) else what)

    def close_epoch(self, tested: dict[str, float]) -> None:
        """Move the epoch's means and its evaluation into the history."""
        self.check_finite(tested, self.goes_by)
        figures = {f"train_{key}": value for key, value in self._means().items()}
        figures |= {f"{self.goes_by}_{key}": value for key, value in tested.items()}
        figures["seconds"] = self.sums["seconds"]
        rate = learning_rate(self.state, self._schedule)
        if rate is not None and (not self.history or "learning_rate" in self.history):
            figures["learning_rate"] = rate  # of all epochs, or of none
        if skips := optax.tree.get_all_with_path(self.state.opt_state, "total_notfinite"):
            figures["skipped"] = max(int(skipped) for _, skipped in skips)
        for key, value in figures.items():
            self.history.setdefault(key, []).append(value)
        self.sums = {}

    def tested(self, exam: Examination, state: State, chosen: Outcome) -> Outcome:
        """Measure the chosen state on the test set."""
        metrics = figures = self._evaluated(chosen.epoch)
        if self.goes_by == "validation" or (exam.classifies and exam.step != state.step):
            metrics = exam(state) or {}
            self.check_finite(metrics, "test")
        validation = figures if self.goes_by == "validation" else {}
        return dataclasses.replace(
            chosen,
            metrics=metrics,
            validation=validation,
            measures=exam.measures,
            errors=exam.errors(),
        )

    def save(self) -> None:
        about: dict[str, Any] = {"history": self.history, "sums": self.sums}
        if self.stopped:
            about["stopped"] = True
        best = self.best_epoch * self.steps_per_epoch or None
        self.checkpoints.save(self.step, self.state, about, best)

    def _means(self) -> dict[str, float]:
        steps = self.sums["steps"]
        rest = self.sums.keys() - {"steps", "seconds"}
        return {key: self.sums[key] / steps if steps else math.nan for key in sorted(rest)}

    def keep_after(self, error: Exception) -> None:
        """Save, since the training cannot go on, and let the error say so."""
        if self.step:
            self.save()
            self.checkpoints.wait()
        if steps := self.checkpoints.steps():
            kept = (
                f"{self.name} was stopped at step {self.step}, and with --resume goes on from"
                f" {self.checkpoints.path(steps[-1])}."
            )
            if isinstance(error, InputError):
                raise InputError(f"{str(error).rstrip('.')}; {kept}") from error
            error.add_note(kept)

    def _diverged(self, what: str) -> DivergedError:
        self.save()
        self.checkpoints.wait()
        return DivergedError(
            f"{what}; the configuration is in {self.folder.path / 'config.json'}, "
            f"the last good checkpoint is {self.checkpoints.path(self.step)}."
        )


def learning_rate(state: State, schedule: optax.Schedule | None) -> float | None:
    """Return the learning rate of the last step, or None where it is not known.

    It is the schedule's, or else the one that `optax.inject_hyperparams` keeps in the state of the
    optimiser, unless there are several.
    """
    if schedule is not None:
        return np.asarray(schedule(max(int(state.step) - 1, 0))).item()
    found: list[Any] = optax.tree.get_all_with_path(state.opt_state, "learning_rate")
    rates = {
        np.asarray(rate).item() for _, rate in found if hasattr(rate, "dtype") and rate.size == 1
    }
    return rates.pop() if len(rates) == 1 else None
