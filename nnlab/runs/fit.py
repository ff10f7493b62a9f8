"""The training loop around compiled steps: metrics, progress, checkpoints and three ways to end.

A training ends when its epochs are over (or its patience), when it is asked to stop (SIGTERM,
SIGINT, SIGHUP, a hook), or when a number is not finite. However it ends, killed outright included,
its folder holds a checkpoint to continue from, and a resumed training reaches the same bits as an
unbroken one. For that a checkpoint holds all that the loop knows: the state, the history of past
epochs, the sums of the metrics since the last one, and whether a hook has stopped it. Whether
patience is over is derived anew from the history.
"""

import contextlib
import dataclasses
import functools
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import jax
import optax
from jax.sharding import Mesh

from nnlab.errors import InputError, Interrupted, check_count
from nnlab.runs import hosts, networks, peers, signals
from nnlab.runs.checkpoints import Checkpoints, restore
from nnlab.runs.evaluating import (
    Evaluate,
    Examination,
    Outcome,
    Renew,
    Statistics,
    as_it_is,
    renewal,
)
from nnlab.runs.hooks import Hook, Hooks
from nnlab.runs.loggers import Logger, recording
from nnlab.runs.progress import progress as progress_line
from nnlab.runs.run_folder import RunFolder
from nnlab.runs.under_way import History, Score, Training
from nnlab.training.evaluation import Evaluation
from nnlab.training.feeds import Feed
from nnlab.training.steps import Batch, State, Step

_SECONDS = 1.0  # of training, or one step, for which a signal waits at most


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
        last: the state after the last epoch, with the statistics that it was evaluated with.
        history: one value an epoch: `train_loss`, `train_accuracy` and other metrics of the step
            (means over the epoch in training mode), `test_loss`, `test_accuracy` and others of the
            evaluation (`validation_loss` and so on if there is a validation set), `seconds` of
            training without compilation and evaluation, the `learning_rate` of its last step where
            it is known, and under `optax.apply_if_finite` the number of steps `skipped` so far.
        best_epoch: the first epoch with the best score, from 1: on the validation set if there is
            one, otherwise on the test set, which flatters it; 0 if a hook has stopped the training
            within the first.
        best_checkpoint: the checkpoint of that epoch, or of the last step.
        tested: what the test set says of the chosen network: that of the best epoch where there is
            a validation set or patience, and otherwise the last.
        renew: what a state of a checkpoint goes through before it is evaluated.
    """

    last: State
    history: History
    best_epoch: int
    best_checkpoint: Path
    tested: Outcome
    renew: Renew = as_it_is

    @functools.cached_property
    def best(self) -> State:
        """The state after the best epoch, read from its checkpoint when first asked for.

        Raises:
            InputError, CheckpointError: the checkpoint is missing or damaged.
        """
        if self.best_checkpoint.name == f"step_{int(self.last.step)}":
            return self.last
        return self.renew(restore(self.best_checkpoint, like=self.last))

    @property
    def chosen(self) -> State:
        """The state that `tested` is about."""
        return self.last if self.tested.chosen_on is None else self.best


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
    validation: Batch | None = None,
    statistics: Statistics = "auto",
    learning_rate: optax.Schedule | None = None,
    on_epoch: Hook | Sequence[Hook] = (),
    on_step: Hook | Sequence[Hook] = (),
    step_interval: int = 1,
    loggers: Sequence[Logger] = (),
) -> Trained:
    """Train for `epochs` passes over `train`, and evaluate after each.

    With `validation` each epoch is evaluated on that, which decides on the best epoch and on
    patience, and `test` is measured once, in the end, with the network of the best epoch. Without,
    each epoch is evaluated on `test`, and with patience the best epoch is chosen on it too.

    In the end the chosen network, that of the last epoch or, with patience or validation, of the
    best, is written into the folder for `nnlab.models.load_model` and `nnlab predict`, if
    `nnlab.training.evaluation` measures it and a file can name its model; and beside it what the
    test says of it, over all outputs where they are those of a classification.

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
        validation: (inputs, labels) set aside (`nnlab.data.hold_out`), as those of `test`.
        statistics: of BatchNorm in evaluations. By default, "auto", they are taken anew before each
            (`nnlab.training.fresh_statistics`) from 20 batches, which take the time of as many
            forward passes, where the network has L1 layers, whose weights move faster than running
            averages; None keeps running averages; or a function of the state. The training's own
            state, and so its checkpoints, keep their bits.
        learning_rate: the optimiser's schedule, to be recorded; by default that of a recipe of
            `nnlab.optim`, or what `optax.inject_hyperparams` keeps in the state, if it does.
        on_epoch: called as `hook(moment)` after each epoch has been evaluated (a
            `nnlab.runs.hooks.Moment`: numbers of epoch and step, figures, state), one or several.
            Where one returns True the training ends, as if its epochs were over, and stays so when
            it is resumed, unless without hooks. An error in one ends the run; the state is saved.
        on_step: the same after every `step_interval` steps, with the metrics of the last one. A
            compiled program then takes no more steps than that, which costs time (docs/training.md
            says how much). An epoch in which it stops the training has no figures.
        step_interval: the number of steps from call to call.
        loggers: get what the run's folder gets after each epoch, which is a line of
            `metrics.jsonl` and TensorBoard's events: `csv_log`, `wandb_log(…)`.

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
    hooks = Hooks(on_epoch, on_step, step_interval)
    if not checkpoint_minutes >= 0:
        raise InputError(f"checkpoint_minutes must be at least 0, not {checkpoint_minutes}.")
    if name in ("", "..") or Path(name).name != name:
        raise InputError(f"{name!r} is not a network's name, expected one that a folder can have.")
    if mesh is None and jax.process_count() > 1:
        raise InputError(
            f"{jax.process_count()} processes train as one on a mesh of all their devices; "
            "give fit mesh=data_mesh()."
        )
    with (
        Checkpoints(folder.checkpoints / name, keep) as checkpoints,
        peers.going_on(lambda: _goes_on(name, checkpoints)),
    ):
        if checkpoints.steps() and not folder.resume:
            raise InputError(
                f"{folder.path} already holds checkpoints of {name}; give another name."
            )
        goes_by: Literal["validation", "test"] = "test" if validation is None else "validation"
        exam = each = Examination(evaluate, "test", test, mesh)
        if validation is not None:
            each = Examination(evaluate, "validation", validation, mesh)
        steps = train.steps_per_epoch
        rate = learning_rate or getattr(step, "learning_rate", None)
        now = Training(name, state, steps, checkpoints, folder, score, mesh, goes_by, rate)
        with signals.immediate():
            renew = renewal(statistics, now.state, step, evaluate, train, mesh)
            for examined in {exam, each}:
                examined.check(now.state)
            if isinstance(evaluate, Evaluation):
                evaluate.check_labels(now.state, test[0], train.labels)
        now.stopped &= bool(hooks)
        if not now.ended(epochs, patience):
            with contextlib.ExitStack() as stack:
                with signals.immediate():
                    if diagnose and now.step == 0:
                        now.diagnose(step, train, epochs)
                    advance = stack.enter_context(train.compile(step, now.state, mesh))
                    each.compile(now.state)
                record = stack.enter_context(recording(folder, now, loggers))
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
                        count = hooks.cut(hosts.greatest(count), now.step)
                        seconds = now.train(advance, count)
                        report(**now.figures(), examples_per_second=train.batch_size / seconds)
                        count = max(1, int(_SECONDS / seconds))
                        due = bool(checkpoint_steps) and now.step % checkpoint_steps == 0
                        hooks.after_step(now)
                    else:
                        tested = each(renew(now.state), stop)
                    if tested is not None:
                        now.close_epoch(tested)
                        record(step=now.step, **{key: v[-1] for key, v in now.history.items()})
                        hooks.after_epoch(now)
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
        checkpoints.wait()
        best = now.best_epoch
        chooses = validation is not None or patience is not None
        done = Trained(
            renew(now.state),
            now.history,
            best,
            checkpoints.path(best * now.steps_per_epoch or now.step),
            Outcome(best, goes_by, {}) if chooses else Outcome(len(now.scores), None, {}),
            renew,
        )
        if not best:
            return done
        chosen = done.chosen
        with signals.immediate():
            done = dataclasses.replace(done, tested=now.tested(exam, chosen, done.tested))
    folder.add_measures(name, done.tested.as_json())
    if isinstance(evaluate, Evaluation):
        variables = evaluate.variables(chosen)
        reached = now.scores[done.tested.epoch - 1]
        networks.keep(folder, name, evaluate.model, variables, test[0], reached)
    return done


def _goes_on(name: str, checkpoints: Checkpoints) -> str:
    """Say where a training goes on from whose other processes have died."""
    if steps := checkpoints.steps():
        path = checkpoints.path(steps[-1])
        return f"start all processes again with --resume, and {name} goes on from {path}"
    return f"no state of {name} is saved yet, so start all processes again"
