"""The training loop around compiled steps: metrics, progress, checkpoints and three ways to end.

A training ends when its epochs are over (or its patience), when it is asked to stop (SIGTERM,
SIGINT, SIGHUP), or when a number is not finite. However it ends, killed outright included, its
folder holds a checkpoint to continue from, and a resumed training reaches the same bits as an
unbroken one. For that a checkpoint holds all that the loop knows: the state, the history of past
epochs, and the sums of the metrics since the last one. Whether to stop early is derived anew from
the history.
"""

import contextlib
import dataclasses
import functools
import math
import operator
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.early_stopping import EarlyStopping
from jax.sharding import Mesh

from nnlab.data.batches import shared_size
from nnlab.errors import DivergedError, InputError, Interrupted, check_count
from nnlab.runs import hosts, networks, signals
from nnlab.runs.checkpoints import Checkpoints, restore
from nnlab.runs.progress import progress as progress_line
from nnlab.runs.run_folder import RunFolder
from nnlab.training.evaluation import Evaluation
from nnlab.training.feeds import Advance, Feed
from nnlab.training.parallel import replicate
from nnlab.training.steps import Batch, Metrics, State, Step, leaf_name

Evaluate = Callable[[State, Batch], Metrics]
History = dict[str, list[float]]
Score = Callable[[dict[str, float]], float]

# A signal waits for at most this:
_SECONDS = 1.0  # of training, or one step
_EXAMPLES = 1000  # of evaluation
_LABELS = ", as it is if a label is none of the classes"


def best_accuracy(tested: dict[str, float]) -> float:
    """Return the accuracy; raise `InputError` if the test does not measure it."""
    if "accuracy" not in tested:
        raise InputError(
            f"the test gives {', '.join(tested)} and no accuracy to go by; give fit a score, such"
            " as least_loss."
        )
    return tested["accuracy"]


def least_loss(tested: dict[str, float]) -> float:
    """Return the negative loss: the smaller the loss, the better."""
    return -tested["loss"]


@dataclasses.dataclass(frozen=True)
class Trained:
    """A training that has ended.

    Attributes:
        last: the state after the last epoch.
        history: one value an epoch: `train_loss`, `train_accuracy` and other metrics of the step
            (means over the epoch in training mode), `test_loss`, `test_accuracy` and others of the
            evaluation, `seconds` of training without compilation and evaluation, and under
            `optax.apply_if_finite` the number of steps `skipped` so far.
        best_epoch: the first epoch with the best score, from 1.
        best_checkpoint: the checkpoint of that epoch.
    """

    last: State
    history: History
    best_epoch: int
    best_checkpoint: Path

    @functools.cached_property
    def best(self) -> State:
        """The state after the best epoch, read from its checkpoint when first asked for.

        Raises:
            InputError, CheckpointError: the checkpoint is missing or damaged.
        """
        if self.best_checkpoint.name == f"step_{int(self.last.step)}":
            return self.last
        return restore(self.best_checkpoint, like=self.last)


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
    score: Score = best_accuracy,
    diagnose: bool = True,
    statistics: Callable[[State], State] | None = None,
) -> Trained:
    """Train for `epochs` passes over `train`, and evaluate on `test` after each.

    In the end the network that `nnlab.training.evaluation` measures is written into the folder, if
    a file can name its model, for `nnlab.models.load_model` and `nnlab predict`: that of the last
    epoch or, with patience, of the best.

    Args:
        name: the network's name on its progress line, in its metrics and for its checkpoints.
        state, step, evaluate: from `nnlab.training.steps`.
        train: from `nnlab.training.feeds`.
        test: (inputs, labels), arrays or trees of them; images checked by
            `nnlab.vision.check_arrays`.
        epochs: the number of passes.
        folder: receives metrics after every epoch, checkpoints, and the network with the folder's
            notes. If it is being resumed, the training continues from its newest checkpoint of
            that name.
        mesh: the devices to train on (`nnlab.training.data_mesh`), by default the first one.
            With several processes each calls `fit` alike; all read the folder, process 0 writes.
        checkpoint_minutes: the time between checkpoints.
        checkpoint_steps: also make a checkpoint at every multiple of this number of steps. There is
            one after each epoch with the best score so far, and one at the end.
        keep: how many of the newest checkpoints to keep; that of the best epoch is kept too.
        patience: stop once more epochs than this in a row have not improved on the best score.
        score: a function of what `evaluate` returns, larger being better: `best_accuracy`,
            `least_loss`, ….
        diagnose: before the first step, print what of the network cannot learn
            (`nnlab.training.diagnose`), where `step` is what `train_step` returns.
        statistics: takes those of normalisations anew before each evaluation
            (`nnlab.training.fresh_statistics`), for networks that move fast, as adders do.

    Raises:
        InputError: a number of epochs, minutes or steps is none, or the name is none of a folder;
            or the next batch cannot be read (the state is saved); or the folder holds
            checkpoints of that name and is not being resumed, there are several processes and no
            mesh, or `test` has no examples or arrays of different numbers of them.
        DivergedError: a number is not finite; the state before that step is saved.
        Interrupted: by SIGTERM, SIGINT or SIGHUP; the state is saved.
        CheckpointError: a checkpoint cannot be written, or none of those there can be read.
    """
    check_count("epochs", epochs)
    check_count("keep", keep)
    check_count("checkpoint_steps", 1 if checkpoint_steps is None else checkpoint_steps)
    check_count("patience", 0 if patience is None else patience, least=0)
    if not checkpoint_minutes >= 0:
        raise InputError(f"checkpoint_minutes must be at least 0, not {checkpoint_minutes}.")
    if name in ("", "..") or Path(name).name != name:
        raise InputError(f"{name!r} is not a network's name, expected one that a folder can have.")
    if mesh is None and jax.process_count() > 1:
        raise InputError(
            f"{jax.process_count()} processes train as one on a mesh of all their devices; "
            "give fit mesh=data_mesh()."
        )
    with Checkpoints(folder.checkpoints / name, keep) as checkpoints:
        if checkpoints.steps() and not folder.resume:
            raise InputError(
                f"{folder.path} already holds checkpoints of {name}; give another name."
            )
        now = _Training(name, state, train.steps_per_epoch, checkpoints, folder, score, mesh)
        if not now.ended(epochs, patience):
            with contextlib.ExitStack() as stack:
                with signals.immediate():
                    if diagnose and now.step == 0:
                        now.diagnose(step, train, epochs)
                    advance = stack.enter_context(train.compile(step, now.state, mesh))
                    pieces = _compiled_pieces(evaluate, now.state, test, mesh)
                record = stack.enter_context(folder.metrics(name, after=now.last_epoch_end))
                report = stack.enter_context(progress_line(name, epochs))
                signalled = stack.enter_context(signals.deferred())

                def stop() -> int:
                    return hosts.greatest(signalled() or 0)

                count, saved = 1, time.monotonic()
                while not now.ended(epochs, patience):
                    due, tested = False, None
                    if now.within_epoch:
                        if checkpoint_steps:
                            count = min(count, checkpoint_steps - now.step % checkpoint_steps)
                        seconds = now.train(advance, hosts.greatest(count))
                        report(**now.figures(), examples_per_second=train.batch_size / seconds)
                        count = max(1, int(_SECONDS / seconds))
                        due = bool(checkpoint_steps) and now.step % checkpoint_steps == 0
                    else:
                        if statistics is not None:
                            now.state = statistics(now.state)
                        tested = _mean_over_pieces(pieces, now.state, stop)
                    if tested is not None:
                        now.close_epoch(tested)
                        record(step=now.step, **{key: v[-1] for key, v in now.history.items()})
                        due = now.best_epoch * now.steps_per_epoch == now.step
                    if due or time.monotonic() - saved >= 60 * checkpoint_minutes:
                        now.save()
                        saved = time.monotonic()
                    if came := stop():
                        now.save()
                        checkpoints.wait()
                        by, path = signal.Signals(came), checkpoints.path(now.step)
                        raise Interrupted(
                            f"{name} was stopped by {by.name} at step {now.step}; "
                            f"with --resume it goes on from {path}.",
                            by,
                        )
                now.save()
    best = now.best_epoch
    done = Trained(now.state, now.history, best, checkpoints.path(best * now.steps_per_epoch))
    if isinstance(evaluate, Evaluation):
        early = patience is not None
        variables = evaluate.variables(done.best if early else done.last)
        reached = now.scores[best - 1 if early else -1]
        networks.keep(folder, name, evaluate.model, variables, test[0], reached)
    return done


class _Training:
    """A training under way: its state, and all else that a checkpoint holds.

    Attributes:
        history: what each finished epoch measured.
        sums: the metrics of the current epoch, summed over its steps.
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
    ):
        """Start from the newest checkpoint, or from `state` if there is none."""
        # A copy, because training donates the memory of its states.
        fresh = jax.tree.map(jnp.copy, state), {"history": {}, "sums": {}}
        state, about = checkpoints.newest(like=state) or fresh
        self.state = state if mesh is None else replicate(state, mesh)
        self.history: History = about["history"]
        self.sums: dict[str, float] = about["sums"]
        self.name, self.steps_per_epoch, self.score = name, steps_per_epoch, score
        self.checkpoints, self.folder = checkpoints, folder

    @property
    def step(self) -> int:
        return int(self.state.step)

    @property
    def scores(self) -> list[float]:
        """The score of every finished epoch."""
        tested = {key[5:]: each for key, each in self.history.items() if key.startswith("test_")}
        epochs = zip(*tested.values(), strict=True)
        return [self.score(dict(zip(tested, values, strict=True))) for values in epochs]

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
            for fault in look.diagnose(variables, train.first(), steps=steps):
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
            self._keep_after(error)
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
        return seconds / made

    def figures(self) -> dict[str, float]:
        """What the progress line shows of the epoch so far."""
        means = self._means()
        figures = {"epoch": self.step / self.steps_per_epoch, "loss": means["loss"]}
        if "accuracy" in means:
            accuracies = self.history.get("test_accuracy", [means["accuracy"]])
            figures["accuracy"] = accuracies[-1]
        return figures

    def close_epoch(self, tested: dict[str, float]) -> None:
        """Move the epoch's means and its test into the history."""
        if not math.isfinite(tested["loss"]):
            what = f"The test loss of {self.name} is {tested['loss']} after step {self.step}"
            raise self._diverged(what + _LABELS if math.isnan(tested["loss"]) else what)
        figures = {f"train_{key}": value for key, value in self._means().items()}
        figures |= {f"test_{key}": value for key, value in tested.items()}
        figures["seconds"] = self.sums["seconds"]
        if skips := optax.tree.get_all_with_path(self.state.opt_state, "total_notfinite"):
            figures["skipped"] = max(int(skipped) for _, skipped in skips)
        for key, value in figures.items():
            self.history.setdefault(key, []).append(value)
        self.sums = {}

    def save(self) -> None:
        about = {"history": self.history, "sums": self.sums}
        best = self.best_epoch * self.steps_per_epoch or None
        self.checkpoints.save(self.step, self.state, about, best)

    def _means(self) -> dict[str, float]:
        steps = self.sums["steps"]
        rest = self.sums.keys() - {"steps", "seconds"}
        return {key: self.sums[key] / steps if steps else math.nan for key in sorted(rest)}

    def _keep_after(self, error: Exception) -> None:
        """Save, since the next batch cannot be read; an `InputError` gets a better one."""
        if self.step:
            self.save()
            self.checkpoints.wait()
        if isinstance(error, InputError) and (steps := self.checkpoints.steps()):
            raise InputError(
                f"{str(error).rstrip('.')}; {self.name} was stopped at step {self.step}, and with"
                f" --resume goes on from {self.checkpoints.path(steps[-1])}."
            ) from error

    def _diverged(self, what: str) -> DivergedError:
        self.save()
        self.checkpoints.wait()
        return DivergedError(
            f"{what}; the configuration is in {self.folder.path / 'config.json'}, "
            f"the last good checkpoint is {self.checkpoints.path(self.step)}."
        )


Piece = tuple[Callable[[State, Batch], Metrics], Batch]


def _compiled_pieces(
    evaluate: Evaluate, state: State, test: Batch, mesh: Mesh | None
) -> list[Piece]:
    """Cut the test data into pieces, each with the program for its size."""
    pieces, programs = [], {}
    for start in range(0, shared_size(test), _EXAMPLES):
        chosen = slice(start, start + _EXAMPLES)
        piece = jax.tree.map(operator.itemgetter(chosen), test)
        if mesh is not None:
            piece = replicate(piece, mesh)
        size = shared_size(piece)
        if size not in programs:
            programs[size] = jax.jit(evaluate).lower(state, piece).compile()
        pieces.append((programs[size], piece))
    return pieces


def _mean_over_pieces(
    pieces: list[Piece], state: State, stop: Callable[[], Any]
) -> dict[str, float] | None:
    """Return the metrics over all test data, or None if a signal comes in between."""
    sums: dict[str, float] = {}
    for program, piece in pieces:
        if stop():
            return None
        for key, value in program(state, piece).items():
            sums[key] = sums.get(key, 0.0) + float(value) * shared_size(piece)
    examples = sum(shared_size(piece) for _, piece in pieces)
    return {key: value / examples for key, value in sums.items()}
