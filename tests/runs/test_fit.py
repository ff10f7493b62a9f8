"""`fit`: what it returns, what it leaves on disk, and how it ends when the loss is not finite."""

import functools
import json
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.errors import DivergedError, InputError
from nnlab.layers.normalization import batch_norm
from nnlab.runs import (
    RunFolder,
    fit,
    least_loss,
    restore,
)
from nnlab.runs.checkpoints import Checkpoints
from nnlab.training import (
    evaluation,
    in_memory,
    init,
    train_epoch,
    train_step,
    train_steps,
)

RNG = np.random.default_rng(0)
TRAIN = jnp.asarray(RNG.normal(size=(18, 4, 4, 1))), jnp.asarray(RNG.integers(0, 3, 18))
TEST = jnp.asarray(RNG.normal(size=(7, 4, 4, 1))), jnp.asarray(RNG.integers(0, 3, 7))
BATCH = 4  # four steps an epoch


class Net(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = batch_norm(train)(nn.Dense(8)(x.reshape(len(x), -1)))
        return nn.Dense(3)(nn.relu(x))


SGD = optax.sgd(0.1, 0.9)
STEP = train_step(Net(), SGD)
EVALUATE = evaluation(Net())


@functools.cache
def start():
    return init(jax.random.key(0), Net(), SGD, TRAIN[0])


@dataclass
class Config:
    learning_rate: float = 0.1


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", Config())


def fitted(folder, step: Any = STEP, epochs=3, batch_size=BATCH, evaluate=EVALUATE, **options):
    feed = in_memory(TRAIN, batch_size)
    options |= {"epochs": epochs, "folder": folder}
    return fit("CNN", options.pop("state", start()), step, evaluate, feed, TEST, **options)


def after(epochs):
    """The state and the metrics of each epoch, without `fit`."""
    epoch, state, metrics = train_epoch(STEP, BATCH), start(), []
    for _ in range(epochs):
        state, stacked = epoch(state, TRAIN)
        metrics.append(stacked)
    return state, metrics


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and (x == y).all()


def lines(folder):
    return [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]


def untimed(figures):
    return {key: value for key, value in figures.items() if key != "seconds"}


def test_trains_epochs_and_leaves_metrics_and_a_checkpoint(folder, capfd):
    trained = fitted(folder)
    state, history = trained.last, trained.history
    expected, metrics = after(3)
    assert_same_bits(state, expected)
    assert state.step == 12
    for name in ("loss", "accuracy"):
        means = [np.asarray(m[name], np.float64).mean() for m in metrics]
        np.testing.assert_allclose(history[f"train_{name}"], means, rtol=1e-15)
        assert len(history[f"test_{name}"]) == 3
        assert history[f"test_{name}"][-1] == EVALUATE(state, TEST)[name]
    assert len(history["seconds"]) == 3 and min(history["seconds"]) > 0
    assert lines(folder) == [
        {"network": "CNN", "step": 4 * (n + 1)} | {key: history[key][n] for key in history}
        for n in range(3)
    ]
    like = init(jax.random.key(1), Net(), SGD, TRAIN[0])
    assert_same_bits(restore(folder.checkpoints / "CNN" / "step_12", like), state)
    assert capfd.readouterr() == ("", "")  # no terminal, no progress line


def test_a_restored_state_goes_on_to_the_bit(folder):
    fitted(folder, epochs=2)
    half = restore(folder.checkpoints / "CNN" / "step_8", start())
    assert_same_bits(train_epoch(STEP, BATCH)(half, TRAIN)[0], after(3)[0])


def test_a_batch_of_the_whole_split_and_one_image_more(folder):
    with pytest.raises(
        InputError, match=r"^--batch-size must be at most the 18 examples, not 19\.$"
    ):
        fitted(folder, batch_size=19)
    assert not (folder.path / "metrics.jsonl").exists()
    assert fitted(folder, epochs=1, batch_size=18).last.step == 1


def test_a_name_is_trained_once_in_a_folder(folder):
    fitted(folder, epochs=1)
    before = lines(folder)
    with pytest.raises(InputError, match="already holds checkpoints of CNN; give another name"):
        fitted(folder, epochs=1)
    assert lines(folder) == before


def poisoned(number, where="bias"):
    """SGD whose update `number`, counted from 1, is not a number in one leaf of the first layer."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        count = state + 1

        def spoil(path, leaf):
            here = jax.tree_util.keystr(path) == f"['Dense_0']['{where}']"
            return jnp.where(here & (count == number), jnp.nan, leaf)

        return jax.tree_util.tree_map_with_path(spoil, updates), count

    poison = optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)
    return optax.chain(SGD, poison)


def state_of(optimizer):
    return start()._replace(opt_state=optimizer.init(start().params))


@pytest.mark.parametrize("number", [1, 6, 8, 12])
def test_a_step_that_is_not_finite_is_not_taken_and_ends_the_run(folder, number):
    optimizer = poisoned(number)
    state = state_of(optimizer)
    with pytest.raises(DivergedError) as error:
        fitted(folder, train_step(Net(), optimizer), state=state, checkpoint_steps=2)
    path = folder.checkpoints / "CNN" / f"step_{number - 1}"
    assert str(error.value) == (
        f"params['Dense_0']['bias'] of CNN is not finite at step {number}; the configuration is in "
        f"{folder.path / 'config.json'}, the last good checkpoint is {path}."
    )
    whole, left = after((number - 1) // 4)[0], (number - 1) % 4
    expected, _ = train_steps(STEP, BATCH)(whole, TRAIN, left)
    assert_same_bits(restore(path, state).params, expected.params)
    assert [line["step"] for line in lines(folder)] == [4, 8][: (number - 1) // 4]


def test_a_test_loss_that_is_not_finite_ends_the_run(folder):
    def evaluate(state, data):
        metrics = EVALUATE(state, data)
        return metrics | {"loss": jnp.where(state.step == 8, jnp.inf, metrics["loss"])}

    with pytest.raises(DivergedError, match=r"^The test loss of CNN is inf after step 8; the conf"):
        fitted(folder, evaluate=evaluate)
    assert_same_bits(restore(folder.checkpoints / "CNN" / "step_8", start()), after(2)[0])


def test_a_huge_learning_rate_diverges(folder):
    huge = optax.sgd(1e30, 0.9)  # a state of the same structure
    with pytest.raises(DivergedError, match=r" of CNN is not finite at step [2-4]; "):
        fitted(folder, train_step(Net(), huge))


def test_steps_that_apply_if_finite_skips_are_counted_and_the_run_goes_on(folder):
    def spoil(key, images):  # the augmentation of two steps, by the luck of their keys
        return jnp.where(jax.random.uniform(key) < 0.2, jnp.nan, images)

    optimizer = optax.apply_if_finite(SGD, max_consecutive_errors=3)
    step = train_step(Net(), optimizer, augment=spoil)
    trained = fitted(folder, step, state=state_of(optimizer))
    state, history = trained.last, trained.history
    skipped = int(optax.tree_utils.tree_get(state.opt_state, "total_notfinite"))
    assert 0 < skipped < 12 and state.step == 12
    assert history["skipped"][-1] == skipped
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state[1:3], history)))


def test_too_many_skipped_steps_end_the_run(folder):
    optimizer = optax.apply_if_finite(SGD, max_consecutive_errors=3)
    step = train_step(Net(), optimizer, augment=lambda key, images: images + jnp.nan)
    with pytest.raises(DivergedError, match=r"^params\['\w+'\].* is not finite at step 4; "):
        fitted(folder, step, state=state_of(optimizer))


class Stopped(Exception):
    """In place of a kill."""


def interrupted(folder, number, **options):
    """Ends a run outright when it has evaluated epoch `number`."""

    def evaluate(state, data):
        jax.debug.callback(end, state.step)
        return EVALUATE(state, data)

    def end(step):
        if step == 4 * number:
            raise Stopped

    with pytest.raises(Exception, match="Stopped"):
        fitted(folder, evaluate=evaluate, **options)


@pytest.mark.parametrize("options", [{}, {"checkpoint_steps": 1}, {"checkpoint_steps": 3}])
def test_a_resumed_run_has_the_bits_and_the_history_of_an_unbroken_one(folder, tmp_path, options):
    whole = RunFolder.create(tmp_path / "whole", Config())
    unbroken = fitted(whole)
    interrupted(folder, 2, **options)
    resumed = fitted(RunFolder(folder.path, resume=True), **options)
    assert_same_bits(resumed.last, unbroken.last)
    assert untimed(resumed.history) == untimed(unbroken.history)
    assert [*map(untimed, lines(folder))] == [*map(untimed, lines(whole))]


def test_a_finished_run_resumes_to_its_result(folder):
    trained = fitted(folder)
    state, history = trained.last, trained.history
    before = (folder.path / "metrics.jsonl").read_text()
    resumed = fitted(RunFolder(folder.path, resume=True))
    assert_same_bits(resumed.last, state)
    assert resumed.history == history and (folder.path / "metrics.jsonl").read_text() == before


def test_the_newest_and_the_best_checkpoints_stay(folder):
    accuracies = jnp.array([0.1, 0.9, 0.3, 0.2, 0.4])

    def evaluate(state, data):
        return {"loss": jnp.float32(1), "accuracy": accuracies[state.step // 4 - 1]}

    fitted(folder, evaluate=evaluate, epochs=5, checkpoint_steps=5, keep=2)
    with Checkpoints(folder.checkpoints / "CNN") as checkpoints:
        assert checkpoints.steps() == [8, 15, 20]


def test_the_least_loss_is_the_best_where_it_is_what_counts(folder):
    losses = jnp.array([0.9, 0.1, 0.3, 0.2, 0.4])

    def evaluate(state, data):
        return {"loss": losses[state.step // 4 - 1], "bits": jnp.float32(1)}

    options = {"evaluate": evaluate, "score": least_loss, "epochs": 5, "keep": 1}
    history = fitted(folder, patience=2, **options).history
    assert history["test_loss"] == [pytest.approx(value) for value in (0.9, 0.1, 0.3, 0.2, 0.4)]
    assert history["test_bits"] == [1.0] * 5 and "test_accuracy" not in history
    with Checkpoints(folder.checkpoints / "CNN") as checkpoints:
        assert checkpoints.steps() == [8, 20]


def test_a_score_that_the_test_does_not_have_is_named(folder):
    def evaluate(state, data):
        return {"loss": jnp.float32(1), "bits": jnp.float32(1)}

    sentence = (
        r"^the test gives bits, loss and no accuracy to go by; give fit a score, such as least"
    )
    with pytest.raises(InputError, match=sentence):
        fitted(folder, evaluate=evaluate)


def test_patience_ends_the_run_and_so_it_stays(folder):
    accuracies = jnp.array([0.1, 0.9, 0.3, 0.2, 0.4, 0.5])

    def evaluate(state, data):
        return {"loss": jnp.float32(1), "accuracy": accuracies[state.step // 4 - 1]}

    trained = fitted(folder, evaluate=evaluate, epochs=6, patience=1)
    assert len(trained.history["test_accuracy"]) == 4
    assert trained.best_epoch == 2 and trained.best.step == 8
    again = RunFolder(folder.path, resume=True)
    resumed = fitted(again, evaluate=evaluate, epochs=6, patience=1)
    assert resumed.last.step == 16 and resumed.best.step == 8
