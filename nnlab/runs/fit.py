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
import operator
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from nnlab.data.batches import check_batch, shared_size
from nnlab.errors import InputError, Interrupted, check_count
from nnlab.runs import hosts, networks, peers, signals
from nnlab.runs.checkpoints import Checkpoints, restore
from nnlab.runs.progress import progress as progress_line
from nnlab.runs.run_folder import RunFolder
from nnlab.runs.under_way import History, Score, Training
from nnlab.training.evaluation import Evaluation
from nnlab.training.feeds import Feed
from nnlab.training.parallel import replicate
from nnlab.training.steps import Batch, Metrics, State, Step

Evaluate = Callable[[State, Batch], Metrics]

# A signal waits for at most this:
_SECONDS = 1.0  # of training, or one step
_EXAMPLES = 1000  # of evaluation


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
            mesh, `test` has no examples or arrays of different numbers of them, or a label is
            none of the network's classes.
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
    if isinstance(evaluate, Evaluation):
        for labels in (train.labels, check_batch(test)[1]):
            evaluate.check_labels(state, test[0], labels)
    with (
        Checkpoints(folder.checkpoints / name, keep) as checkpoints,
        peers.going_on(lambda: _goes_on(name, checkpoints)),
    ):
        if checkpoints.steps() and not folder.resume:
            raise InputError(
                f"{folder.path} already holds checkpoints of {name}; give another name."
            )
        now = Training(name, state, train.steps_per_epoch, checkpoints, folder, score, mesh)
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


def _goes_on(name: str, checkpoints: Checkpoints) -> str:
    """Say where a training goes on from whose other processes have died."""
    if steps := checkpoints.steps():
        path = checkpoints.path(steps[-1])
        return f"start all processes again with --resume, and {name} goes on from {path}"
    return f"no state of {name} is saved yet, so start all processes again"


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
