"""The loop around compiled steps: time, progress, metrics, checkpoints, and three ways to end.

A run ends when it is through, when it is told to (SIGTERM, SIGINT), or when a number is not finite.
However it ends, killed outright included, its folder holds a checkpoint to go on from, and a run
that goes on gets the same bits as one that was never interrupted.
"""

import contextlib
import operator
import signal
import time
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from nnlab.data.batches import shared_size
from nnlab.errors import InputError, Interrupted
from nnlab.runs import hosts, signals
from nnlab.runs.checkpoints import Checkpoints
from nnlab.runs.course import Course, History
from nnlab.runs.progress import progress
from nnlab.runs.run_folder import RunFolder
from nnlab.training.feeds import Feed
from nnlab.training.parallel import replicate
from nnlab.training.steps import (
    Batch,
    Metrics,
    State,
    Step,
)

Evaluate = Callable[[State, Batch], Metrics]
Score = Callable[[dict[str, float]], float]


def best_accuracy(tested: dict[str, float]) -> float:
    """The accuracy; raises `InputError` where there is none."""
    if "accuracy" not in tested:
        raise InputError(
            f"the test gives {', '.join(tested)} and no accuracy to go by; give fit a score, such"
            " as least_loss."
        )
    return tested["accuracy"]


def least_loss(tested: dict[str, float]) -> float:
    """The loss, smaller being better."""
    return -tested["loss"]


# A signal waits for no more than this:
_SECONDS = 1.0  # of training, or one step
_EXAMPLES = 1000  # of evaluation


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
) -> tuple[State, History]:
    """Trains for `epochs` passes over `train` and evaluates on `test` after each.

    Args:
        name: of the network; its progress line, its metrics and its checkpoints carry it.
        state, step, evaluate: from `nnlab.training.steps`.
        train: from `nnlab.training.feeds`.
        test: (inputs, labels), arrays or trees of them; images checked by
            `nnlab.vision.check_arrays`.
        epochs: how many passes.
        folder: receives metrics after every epoch, and checkpoints. Where it is to be resumed, the
            training goes on from its newest checkpoint of that name.
        mesh: whose devices to train on (`nnlab.training.data_mesh`), by default the first one.
            With several processes each calls `fit` alike; all read the folder, process 0 writes.
        checkpoint_minutes: between checkpoints.
        checkpoint_steps: make them at multiples of this too. There is one after each epoch with the
            best score so far, and one at the end.
        keep: how many of the newest checkpoints to keep; that of the best epoch is kept too.
        patience: end when more epochs than this in a row have not had a better score.
        score: of what `evaluate` gives, the larger the better: `best_accuracy`, `least_loss`, ….

    Returns:
        The final state and, one value an epoch, `train_loss`, `train_accuracy` and what other
        metrics the step has (means over the epoch in training mode), `test_loss`, `test_accuracy`
        and others that `evaluate` gives, `seconds` of training, compilation and evaluation left
        out, and under `optax.apply_if_finite` the number of steps `skipped` so far.

    Raises:
        InputError: the folder holds checkpoints of that name and is not to be resumed, or there
            are several processes and no mesh, or arrays of `test` differ in their number of
            examples.
        DivergedError: a number is not finite; the state before that step is saved.
        Interrupted: by SIGTERM or SIGINT; the state is saved.
        CheckpointError: one cannot be written, or none that is there can be read.
    """
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
        course = Course.start(name, state, train.steps_per_epoch, checkpoints, folder, score, mesh)
        if course.ended(epochs, patience):
            return course.state, course.history
        with contextlib.ExitStack() as stack:
            with signals.immediate():
                advance = stack.enter_context(train.compile(step, course.state, mesh))
                pieces = _compiled_pieces(evaluate, course.state, test, mesh)
            record = stack.enter_context(folder.metrics(name, after=course.last_epoch_end))
            report = stack.enter_context(progress(name, epochs))
            signalled = stack.enter_context(signals.deferred())

            def stop() -> int:
                return hosts.greatest(signalled() or 0)

            count, saved = 1, time.monotonic()
            while not course.ended(epochs, patience):
                due = False
                if course.within_epoch:
                    if checkpoint_steps:
                        count = min(count, checkpoint_steps - course.step % checkpoint_steps)
                    seconds = course.train(advance, hosts.greatest(count))
                    report(**course.figures(), examples_per_second=train.batch_size / seconds)
                    count = max(1, int(_SECONDS / seconds))
                    due = bool(checkpoint_steps) and course.step % checkpoint_steps == 0
                elif tested := _mean_over_pieces(pieces, course.state, stop):
                    course.close_epoch(tested)
                    record(
                        step=course.step, **{key: each[-1] for key, each in course.history.items()}
                    )
                    due = course.best_step == course.step
                if due or time.monotonic() - saved >= 60 * checkpoint_minutes:
                    course.save()
                    saved = time.monotonic()
                if came := stop():
                    course.save()
                    checkpoints.wait()
                    by, path = signal.Signals(came), checkpoints.path(course.step)
                    raise Interrupted(
                        f"{name} was stopped by {by.name} at step {course.step}; "
                        f"with --resume it goes on from {path}.",
                        by,
                    )
            course.save()
    return course.state, course.history


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
) -> dict[str, float]:
    """Return the metrics over all test data, or nothing if a signal comes in between."""
    sums: dict[str, float] = {}
    for program, piece in pieces:
        if stop():
            return {}
        for key, value in program(state, piece).items():
            sums[key] = sums.get(key, 0.0) + float(value) * shared_size(piece)
    examples = sum(shared_size(piece) for _, piece in pieces)
    return {key: value / examples for key, value in sums.items()}
