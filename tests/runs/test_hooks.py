"""Hooks of `fit`: when they are called, how they stop a training, and that they change no bit."""

import contextlib
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.errors import InputError
from nnlab.runs import RunFolder, fit
from nnlab.runs.checkpoints import Checkpoints
from nnlab.training import Feed, State, evaluation, in_memory, init, train_step

TINY = State(jnp.int32(0), {"w": jnp.zeros(2)}, {}, (), jax.random.key(0))
LOSSES = np.array([1.0, 0.5, 0.25, 0.125])  # of the four steps of an epoch


def advance(state, count):
    first = int(state.step) % 4
    losses = LOSSES[first : first + count]
    metrics = {"loss": losses, "nonfinite": np.full(len(losses), -1)}
    return state._replace(step=state.step + len(losses)), metrics


FEED = Feed(1, 4, lambda *_: contextlib.nullcontext(advance))


def evaluate(state, data):
    return {"loss": jnp.float32(2), "accuracy": state.step / 100}


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", RunFolder(tmp_path))


def fitted(folder, epochs=3, **options):
    test = jnp.zeros(1), jnp.zeros(1)
    return fit("CNN", TINY, None, evaluate, FEED, test, epochs=epochs, folder=folder, **options)  # pyright: ignore[reportArgumentType]


def again(folder, **options):
    return fitted(RunFolder(folder.path, resume=True), **options)


def test_moments_of_epochs(folder):
    seen = []
    trained = fitted(folder, on_epoch=[lambda now: seen.append(now), lambda now: False])
    assert [(m.network, m.epoch, m.step) for m in seen] == [("CNN", n, 4 * n) for n in (1, 2, 3)]
    for n, moment in enumerate(seen):
        assert moment.figures == {key: values[n] for key, values in trained.history.items()}
    assert seen[-1].figures["test_accuracy"] == pytest.approx(0.12)
    assert seen[-1].state is trained.last


@pytest.mark.parametrize(("interval", "steps"), [(1, [1, 2, 3, 4, 5, 6, 7, 8]), (3, [3, 6])])
def test_moments_of_steps(folder, interval, steps):
    seen = []
    fitted(folder, 2, on_step=lambda now: seen.append(now), step_interval=interval)
    assert [m.step for m in seen] == [int(m.state.step) for m in seen] == steps
    assert [m.figures for m in seen] == [{"loss": LOSSES[(step - 1) % 4]} for step in steps]
    assert [m.epoch for m in seen] == [(step - 1) // 4 for step in steps]


def test_a_hook_ends_a_training_after_an_epoch(folder):
    def stop(now):
        return now.figures["test_accuracy"] >= np.float32(0.08)

    for run in (fitted, again):
        trained = run(folder, epochs=9, on_epoch=stop)
        assert int(trained.last.step) == 8 and len(trained.history["test_loss"]) == 2
    assert int(again(folder, epochs=4).last.step) == 16  # without the hook it goes on


def test_a_hook_ends_a_training_at_a_step(folder):
    def stop(now):
        return now.step == 6

    for run in (fitted, again):
        trained = run(folder, on_step=stop)
        assert int(trained.last.step) == 6 and trained.history["train_loss"] == [LOSSES.mean()]
    # The step after which an epoch is complete does not keep it from its test.
    longer = again(folder, epochs=9, on_step=lambda now: now.step == 12, on_epoch=())
    assert int(longer.last.step) == 6
    longer = again(folder, epochs=3)
    assert longer.history["train_loss"] == [LOSSES.mean()] * 3


def test_the_epoch_that_the_last_step_completes_is_tested(folder):
    trained = fitted(folder, on_step=lambda now: now.step == 8, on_epoch=lambda now: False)
    assert int(trained.last.step) == 8 and len(trained.history["test_loss"]) == 2


def test_a_hook_may_stop_within_the_first_epoch(folder):
    trained = fitted(folder, on_step=lambda now: now.step == 2)
    assert (trained.best_epoch, trained.history) == (0, {})
    assert trained.best is trained.last and int(trained.last.step) == 2
    assert trained.best_checkpoint.is_dir()


@pytest.mark.parametrize(("name", "step"), [("on_epoch", 4), ("on_step", 3)])
def test_an_error_of_a_hook_ends_the_run_and_its_state_is_saved(folder, name, step):
    def fail(now):
        if now.step == step:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as error:
        fitted(folder, **{name: fail})  # pyright: ignore[reportArgumentType]
    with Checkpoints(folder.checkpoints / "CNN") as checkpoints:
        assert checkpoints.steps() == [step]
        path = checkpoints.path(step)
    said = f"CNN was stopped at step {step}, and with --resume goes on from {path}."
    assert error.value.__notes__ == [said]
    trained = again(folder, **{name: fail})
    assert int(trained.last.step) == 12 and trained.history["train_loss"] == [LOSSES.mean()] * 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"on_epoch": 3}, "on_epoch must be functions of a moment, not 3"),
        ({"on_step": [print, "loss"]}, "on_step must be functions of a moment, not 'loss'"),
        ({"step_interval": 0}, "step_interval must be an integer of at least 1, not 0"),
        ({"step_interval": math.nan}, "step_interval must be"),
        ({"on_epoch": lambda now: 0.5}, "on_epoch must return True to stop, .*not 0.5; CNN was"),
    ],
)
def test_what_is_no_hook_is_refused(folder, options, said):
    with pytest.raises(InputError, match=said):
        fitted(folder, **options)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(nn.Dropout(0.2, deterministic=not train)(x))


def test_hooks_change_no_bit(tmp_path):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(18, 4)).astype(np.float32), rng.integers(0, 3, 18)
    sgd = optax.sgd(0.1, 0.9)
    step, feed = train_step(Net(), sgd), in_memory(data, 4)
    start = init(jax.random.key(0), Net(), sgd, data[0])
    ends = []
    with feed.compile(step, start, None) as program:
        feed = feed._replace(compile=lambda *_: contextlib.nullcontext(program))
        for number, hook in enumerate(((), lambda now: None)):
            folder = RunFolder.create(tmp_path / str(number), RunFolder(tmp_path))
            measure = evaluation(Net())
            trained = fit(
                *("CNN", start, step, measure, feed, data),
                **{"epochs": 2, "folder": folder, "on_step": hook, "on_epoch": hook},
                diagnose=False,
            )
            ends.append(trained)
    for a, b in zip(
        *(jax.tree.leaves((t.last.params, t.last.opt_state)) for t in ends), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert ends[0].history["train_loss"] == ends[1].history["train_loss"]
