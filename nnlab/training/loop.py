"""The loop around compiled steps: time, progress, metrics, checkpoints, and three ways to end.

A run ends when it is through, when it is told to (SIGTERM, SIGINT), or when a number is not finite.
However it ends, killed outright included, its folder holds a checkpoint to go on from, and a run
that goes on gets the same bits as one that was never interrupted.
"""

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from nnlab.errors import DivergedError, InputError, Interrupted
from nnlab.training import hosts, signals
from nnlab.training.checkpoints import Checkpoints
from nnlab.training.feeds import Advance, Feed, Step
from nnlab.training.parallel import replicate
from nnlab.training.progress import progress
from nnlab.training.run_folder import RunFolder
from nnlab.training.steps import Batch, Metrics, State, leaf_name
from nnlab.training.stopping import stopped_improving

History = dict[str, list[float]]
Evaluate = Callable[[State, Batch], Metrics]

# A signal waits for no more than this:
_SECONDS = 1.0  # of training, or one step
_IMAGES = 1000  # of evaluation


def fit(
    name: str,
    state: State,
    step: Step,
    evaluate: Evaluate,
    train: Feed,
    test: Batch,
    *,
    epochs: int,
    folder: RunFolder,
    mesh: Mesh | None = None,
    checkpoint_minutes: float = 5.0,
    checkpoint_steps: int | None = None,
    keep: int = 2,
    patience: int | None = None,
) -> tuple[State, History]:
    """Trains for `epochs` passes over `train` and evaluates on `test` after each.

    Args:
        name: of the network; its progress line, its metrics and its checkpoints carry it.
        state, step, evaluate: from `nnlab.training.steps`.
        train: from `nnlab.training.feeds`.
        test: (images, labels), checked by `nnlab.data.check_arrays`.
        epochs: how many passes.
        folder: receives metrics after every epoch, and checkpoints. Where it is to be resumed, the
            training goes on from its newest checkpoint of that name.
        mesh: whose devices to train on (`nnlab.training.data_mesh`), by default the first one.
            With several processes each calls `fit` alike; all read the folder, process 0 writes.
        checkpoint_minutes: between checkpoints.
        checkpoint_steps: make them at multiples of this too. There is one after each epoch with the
            best test accuracy so far, and one at the end.
        keep: how many of the newest checkpoints to keep; that of the best epoch is kept too.
        patience: end when more epochs than this in a row have not had a better test accuracy.

    Returns:
        The final state and, one value an epoch, `train_loss`, `train_accuracy` (means over the
        epoch in training mode), `test_loss`, `test_accuracy` (evaluation mode), `seconds` of
        training, compilation and evaluation left out, and under `optax.apply_if_finite` the number
        of steps `skipped` so far.

    Raises:
        InputError: the folder holds checkpoints of that name and is not to be resumed.
        DivergedError: a number is not finite; the state before that step is saved.
        Interrupted: by SIGTERM or SIGINT; the state is saved.
        CheckpointError: one cannot be written, or none that is there can be read.
    """
    with Checkpoints(folder.checkpoints / name, keep) as checkpoints:
        if checkpoints.steps() and not folder.resume:
            raise InputError(
                f"{folder.path} already holds checkpoints of {name}; give another name."
            )
        run = _Run.start(name, state, train.steps_per_epoch, checkpoints, mesh)
        if run.ended(epochs, patience):
            return run.state, run.history
        with contextlib.ExitStack() as stack:
            with signals.immediate():
                advance = stack.enter_context(train.compile(step, run.state, mesh))
                pieces = _compiled_pieces(evaluate, run.state, test, mesh)
            record = stack.enter_context(folder.metrics(name, after=run.last_epoch_end))
            report = stack.enter_context(progress(name, epochs))
            signalled = stack.enter_context(signals.deferred())

            def stop() -> int:
                return hosts.greatest(signalled() or 0)

            count, saved = 1, time.monotonic()
            while not run.ended(epochs, patience):
                due = False
                if run.within_epoch:
                    if checkpoint_steps:
                        count = min(count, checkpoint_steps - run.step % checkpoint_steps)
                    seconds = run.train(advance, hosts.greatest(count), folder)
                    report(**run.figures(), images_per_second=train.batch_size / seconds)
                    count = max(1, int(_SECONDS / seconds))
                    due = bool(checkpoint_steps) and run.step % checkpoint_steps == 0
                elif tested := _mean_over_pieces(pieces, run.state, stop):
                    run.close_epoch(tested, folder)
                    record(step=run.step, **{key: each[-1] for key, each in run.history.items()})
                    due = run.best_step == run.step
                if due or time.monotonic() - saved >= 60 * checkpoint_minutes:
                    run.save()
                    saved = time.monotonic()
                if came := stop():
                    run.save()
                    checkpoints.wait()
                    by, path = signal.Signals(came), checkpoints.path(run.step)
                    raise Interrupted(
                        f"{name} was stopped by {by.name} at step {run.step}; "
                        f"with --resume it goes on from {path}.",
                        by,
                    )
            run.save()
    return run.state, run.history


@dataclasses.dataclass
class _Run:
    """Where a training stands: its state, what its epochs came to, the sums of the present one."""

    name: str
    state: State
    history: History
    sums: dict[str, float]
    steps_per_epoch: int
    checkpoints: Checkpoints
    step: int

    @classmethod
    def start(
        cls,
        name: str,
        state: State,
        steps_per_epoch: int,
        checkpoints: Checkpoints,
        mesh: Mesh | None,
    ) -> "_Run":
        """At the newest checkpoint, or at `state`."""
        # A copy, because training gives the memory of its states away.
        fresh = jax.tree.map(jnp.copy, state), {"history": {}, "sums": {}}
        state, about = checkpoints.newest(like=state) or fresh
        if mesh is not None:
            state = replicate(state, mesh)
        return cls(
            name,
            state,
            **about,
            steps_per_epoch=steps_per_epoch,
            checkpoints=checkpoints,
            step=int(state.step),
        )

    def ended(self, epochs: int, patience: int | None) -> bool:
        accuracies = self.history.get("test_accuracy", [])
        return len(accuracies) >= epochs or (
            patience is not None and stopped_improving(accuracies, patience)
        )

    @property
    def last_epoch_end(self) -> int:
        """The step of the last evaluation, up to which there are metrics."""
        return self.steps_per_epoch * len(self.history.get("seconds", []))

    @property
    def within_epoch(self) -> bool:
        """Whether the epoch has steps left; otherwise it has yet to be evaluated."""
        return self.step < self.last_epoch_end + self.steps_per_epoch

    @property
    def best_step(self) -> int | None:
        accuracies = self.history.get("test_accuracy")
        return (1 + int(np.argmax(accuracies))) * self.steps_per_epoch if accuracies else None

    def train(self, advance: Advance, count: int, folder: RunFolder) -> float:
        """Takes up to `count` steps and returns the seconds of one."""
        start = time.perf_counter()
        self.state, metrics = advance(self.state, count)
        made = len(metrics["loss"])
        self.step = int(self.state.step)
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
            what = f"{leaf_name(self.state, leaf)} of {self.name} is not finite"
            raise self._diverged(f"{what} at step {self.step + 1}", folder)
        return seconds / made

    def figures(self) -> dict[str, float]:
        """Of the epoch so far, for the progress line."""
        means = self._means()
        accuracy = self.history.get("test_accuracy", [means["accuracy"]])[-1]
        return {
            "epoch": self.step / self.steps_per_epoch,
            "loss": means["loss"],
            "accuracy": accuracy,
        }

    def close_epoch(self, tested: dict[str, float], folder: RunFolder) -> None:
        if not math.isfinite(tested["loss"]):
            what = f"The test loss of {self.name} is {tested['loss']} after step {self.step}"
            raise self._diverged(what, folder)
        figures = {f"train_{key}": value for key, value in self._means().items()}
        figures |= {f"test_{key}": value for key, value in tested.items()}
        figures["seconds"] = self.sums["seconds"]
        if isinstance(self.state.opt_state, optax.ApplyIfFiniteState):
            figures["skipped"] = int(self.state.opt_state.total_notfinite)
        for key, value in figures.items():
            self.history.setdefault(key, []).append(value)
        self.sums = {}

    def save(self) -> None:
        about = {"history": self.history, "sums": self.sums}
        self.checkpoints.save(self.step, self.state, about, self.best_step)

    def _means(self) -> dict[str, float]:
        steps = self.sums["steps"]
        rest = self.sums.keys() - {"steps", "seconds"}
        return {key: self.sums[key] / steps if steps else math.nan for key in sorted(rest)}

    def _diverged(self, what: str, folder: RunFolder) -> DivergedError:
        self.save()
        self.checkpoints.wait()
        return DivergedError(
            f"{what}; the configuration is in {folder.path / 'config.json'}, "
            f"the last good checkpoint is {self.checkpoints.path(self.step)}."
        )


Piece = tuple[Callable[[State, Batch], Metrics], Batch]


def _compiled_pieces(
    evaluate: Evaluate, state: State, test: Batch, mesh: Mesh | None
) -> list[Piece]:
    """The test images in pieces, each with the program for its size."""
    pieces, programs = [], {}
    for start in range(0, len(test[0]), _IMAGES):
        piece = (test[0][start : start + _IMAGES], test[1][start : start + _IMAGES])
        if mesh is not None:
            piece = replicate(piece, mesh)
        if len(piece[0]) not in programs:
            programs[len(piece[0])] = jax.jit(evaluate).lower(state, piece).compile()
        pieces.append((programs[len(piece[0])], piece))
    return pieces


def _mean_over_pieces(
    pieces: list[Piece], state: State, stop: Callable[[], Any]
) -> dict[str, float]:
    """The metrics over all test images; nothing where a signal comes in between."""
    sums: dict[str, float] = {}
    for program, piece in pieces:
        if stop():
            return {}
        for key, value in program(state, piece).items():
            sums[key] = sums.get(key, 0.0) + float(value) * len(piece[0])
    return {
        key: value / sum(len(labels) for _, (_, labels) in pieces) for key, value in sums.items()
    }
