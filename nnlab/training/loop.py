"""The loop around compiled epochs: time, progress, metrics, and a stop where the loss diverges."""

import time
from collections.abc import Callable

import jax
import numpy as np

from nnlab.errors import DivergedError, InputError
from nnlab.training import checkpoints
from nnlab.training.progress import progress
from nnlab.training.run_folder import RunFolder
from nnlab.training.steps import Batch, Metrics, State, steps_per_epoch, train_epoch

History = dict[str, list[float]]


def fit(
    name: str,
    state: State,
    step: Callable[[State, Batch], tuple[State, Metrics]],
    evaluate: Callable[[State, Batch], Metrics],
    train: Batch,
    test: Batch,
    *,
    epochs: int,
    batch_size: int,
    folder: RunFolder,
) -> tuple[State, History]:
    """Trains for `epochs` passes over `train` and evaluates on `test` after each.

    Args:
        name: of the network; its progress line, its metrics and its checkpoints carry it.
        state, step, evaluate: from `nnlab.training.steps`.
        train, test: (images, labels), checked by `nnlab.data.check_arrays`.
        epochs: how many passes.
        batch_size: images a step; those of a pass that fill no batch are left out.
        folder: receives metrics after every epoch and the final checkpoint.

    Returns:
        The final state and, one value an epoch, `train_loss`, `train_accuracy` (means over the
        epoch in training mode), `test_loss`, `test_accuracy` (evaluation mode) and `seconds` of
        training, compilation and evaluation left out.

    Raises:
        InputError: the batch is larger than the training split, or the folder holds checkpoints
            of that name.
        DivergedError: a loss is not finite; the state before that epoch is saved.
    """
    images = steps_per_epoch(train, batch_size) * batch_size
    if (folder.checkpoints / name).exists():
        raise InputError(f"{folder.path} already holds checkpoints of {name}; give another name.")
    history: History = {}
    with folder.metrics(name) as record, progress(name, epochs) as report:
        epoch = train_epoch(step, batch_size).lower(state, train).compile()
        for number in range(1, epochs + 1):
            before, start = state, time.perf_counter()
            state, metrics = jax.block_until_ready(epoch(before, train))
            seconds = time.perf_counter() - start
            tested = evaluate(state, test)
            _check_finite(name, before, np.append(metrics["loss"], tested["loss"]), folder)
            figures: dict[str, float] = {
                **{f"train_{key}": float(value.mean()) for key, value in metrics.items()},
                **{f"test_{key}": float(value) for key, value in tested.items()},
                "seconds": seconds,
            }
            for key, value in figures.items():
                history.setdefault(key, []).append(value)
            record(step=int(state.step), **figures)
            report(
                epoch=number,
                loss=figures["train_loss"],
                accuracy=figures["test_accuracy"],
                images_per_second=images / seconds,
            )
    checkpoints.save(folder.checkpoints / name / f"step_{int(state.step)}", state)
    return state, history


def _check_finite(name: str, before: State, losses: np.ndarray, folder: RunFolder) -> None:
    """Of the losses of one epoch, the last is that of the evaluation behind it."""
    finite = np.isfinite(losses)
    if finite.all():
        return
    first, last = int(before.step) + 1, int(before.step) + len(losses) - 1
    wrong = first + np.argmin(finite)
    place = f"at step {wrong}" if wrong <= last else f"in evaluation after step {last}"
    last_good = folder.checkpoints / name / f"step_{int(before.step)}"
    checkpoints.save(last_good, before)
    raise DivergedError(
        f"The loss of {name} is {losses[np.argmin(finite)]} {place}, "
        f"in the epoch of steps {first} to {last}; the configuration is in "
        f"{folder.path / 'config.json'}, the last good checkpoint is {last_good}."
    )
