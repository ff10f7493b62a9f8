"""`fit`: what it returns, what it leaves on disk, and how it ends."""

import contextlib
import dataclasses
import functools
import json
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.arithmetics import ADDER
from nnlab.errors import DivergedError, InputError
from nnlab.layers.normalization import batch_norm
from nnlab.optim import adder_recipe, deep_recipe
from nnlab.runs import RunFolder, fit, least_loss, restore
from nnlab.runs.checkpoints import Checkpoints
from nnlab.training import (
    Feed,
    State,
    evaluation,
    fresh_statistics,
    in_memory,
    init,
    measure,
    train_epoch,
    train_step,
    train_steps,
)

RNG = np.random.default_rng(0)
TRAIN = RNG.normal(size=(18, 4, 4, 1)).astype(np.float32), RNG.integers(0, 3, 18)
TEST = RNG.normal(size=(7, 4, 4, 1)).astype(np.float32), RNG.integers(0, 3, 7)
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


@dataclasses.dataclass
class Config:
    learning_rate: float = 0.1


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", Config())


@functools.cache
def compiled(step):
    """The program of a step, compiled once for all trainings here."""
    state = start()
    if step is not STEP:
        state = step_state[step]
    return in_memory(TRAIN, BATCH).compile(step, state, None).__enter__()


step_state: dict[Any, State] = {}
FEED = in_memory(TRAIN, BATCH)._replace(
    compile=lambda step, state, mesh: contextlib.nullcontext(compiled(step))
)


def fitted(folder, step: Any = STEP, epochs=3, evaluate: Any = EVALUATE, feed=FEED, **options):
    options |= {"epochs": epochs, "folder": folder}
    state, test = options.pop("state", start()), options.pop("test", TEST)
    return fit("CNN", state, step, evaluate, feed, test, **options)


@functools.cache
def after(epochs):
    """The state and the metrics of each epoch, without `fit`."""
    state, metrics = start(), []
    for _ in range(epochs):
        state, stacked = one_epoch(state, TRAIN)
        metrics.append(stacked)
    return state, metrics


one_epoch = train_epoch(STEP, BATCH)


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            assert x == y
        else:
            np.testing.assert_array_equal(x, y)


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
    assert_same_bits(restore(folder.checkpoints / "CNN" / "step_12", start()), state)
    assert capfd.readouterr() == ("", "")  # no terminal, no progress line

    with pytest.raises(InputError, match="already holds checkpoints of CNN; give another name"):
        fitted(folder, epochs=1)
    resumed = fitted(RunFolder(folder.path, resume=True))
    assert_same_bits(resumed.last, state)
    assert resumed.history == history and len(lines(folder)) == 3
    longer = fitted(RunFolder(folder.path, resume=True), epochs=5)
    assert_same_bits(longer.last, after(5)[0])
    assert len(lines(folder)) == 5


def poisoned(number):
    """SGD whose update `number`, counted from 1, is not a number in one leaf of the first layer."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        count = state + 1

        def spoil(path, leaf):
            here = jax.tree_util.keystr(path) == "['Dense_0']['bias']"
            return jnp.where(here & (count == number), jnp.nan, leaf)

        return jax.tree_util.tree_map_with_path(spoil, updates), count

    poison = optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)
    return optax.chain(SGD, poison)


def stepping(optimizer, **options):
    """The step of an optimiser, and its state at the start."""
    step = train_step(Net(), optimizer, **options)
    step_state[step] = start()._replace(opt_state=optimizer.init(start().params))
    return {"step": step, "state": step_state[step]}


def test_labels_that_are_no_classes_are_named(folder):
    images, labels = TRAIN
    feed = in_memory((images, labels + 3), BATCH)
    with pytest.raises(InputError, match="labels go from 3 to 5, expected 0 to 2 for the 3 out"):
        fitted(folder, feed=feed, epochs=1)
    feed = feed._replace(labels=None)  # as of a stream
    with pytest.raises(DivergedError, match=r"^loss of CNN .* at step 1, as it is if a label is"):
        fitted(folder, feed=feed, epochs=1)


def test_a_step_that_is_not_finite_is_not_taken_and_ends_the_run(folder):
    parts = stepping(poisoned(6))
    with pytest.raises(DivergedError) as error:
        fitted(folder, **parts, checkpoint_steps=2)
    path = folder.checkpoints / "CNN" / "step_5"
    assert str(error.value) == (
        "params['Dense_0']['bias'] of CNN is not finite at step 6; the configuration is in "
        f"{folder.path / 'config.json'}, the last good checkpoint is {path}."
    )
    expected, _ = jax.jit(train_steps(STEP, BATCH))(after(1)[0], TRAIN, 1)
    assert_same_bits(restore(path, parts["state"]).params, expected.params)
    assert [line["step"] for line in lines(folder)] == [4]


def test_steps_that_apply_if_finite_skips_are_counted(folder):
    def spoil(key, images):  # the augmentation of some steps, by the luck of their keys
        return jnp.where(jax.random.uniform(key) < 0.2, jnp.nan, images)

    parts = stepping(optax.chain(optax.apply_if_finite(SGD, 3)), augment=spoil)
    trained = fitted(folder, **parts)
    state, history = trained.last, trained.history
    skipped = int(optax.tree_utils.tree_get(state.opt_state, "total_notfinite"))
    assert 0 < skipped < 12 and state.step == 12
    assert history["skipped"][-1] == skipped
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state[1:3], history)))


class Stopped(Exception):
    """In place of a kill."""


def ends_the_second_epoch(state, data):
    """Evaluates, and ends a run outright when it has evaluated epoch 2."""

    def end(step):
        if step == 8:
            raise Stopped

    jax.debug.callback(end, state.step)
    return EVALUATE(state, data)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = RunFolder.create(tmp_path_factory.mktemp("unbroken") / "run", Config())
    return fitted(folder), lines(folder)


@pytest.mark.parametrize("options", [{}, {"checkpoint_steps": 1}, {"checkpoint_steps": 3}])
def test_a_resumed_run_has_the_bits_and_the_history_of_an_unbroken_one(folder, unbroken, options):
    with pytest.raises(Exception, match="Stopped"):
        fitted(folder, evaluate=ends_the_second_epoch, **options)
    resumed = fitted(RunFolder(folder.path, resume=True), **options)
    whole, its_lines = unbroken
    assert_same_bits(resumed.last, whole.last)
    assert untimed(resumed.history) == untimed(whole.history)
    assert [*map(untimed, lines(folder))] == [*map(untimed, its_lines)]


# Trainings whose losses are made up: no network, nothing to compile.

LOSSES = [1.0, 0.5, 0.25, 0.125]  # of the four steps of an epoch
TINY = State(jnp.int32(0), {"w": jnp.zeros(2)}, {}, (), jax.random.key(0))


def made_up(bad=None):
    """A feed of the losses above; step `bad`, counted from 0 in each epoch, is refused."""

    def advance(state, count):
        first = int(state.step) % 4
        losses = np.array(LOSSES[first : first + count])
        made, flags = len(losses), np.full(len(losses), -1)
        if bad is not None and first <= bad < first + made:
            made = bad - first
            losses, flags = losses[: made + 1], flags[: made + 1]
            losses[-1], flags[-1] = math.nan, 1
        accuracy = np.where(np.isnan(losses), 0.0, 0.5)
        metrics = {"loss": losses, "accuracy": accuracy, "nonfinite": flags}
        return state._replace(step=state.step + made), metrics

    return Feed(1, 4, lambda *_: contextlib.nullcontext(advance))


def by_epoch(**figures):
    """An evaluation that gives each epoch's figures; the loss is 1 where none are given."""
    figures = {"loss": np.ones(9)} | figures

    def evaluate(state, data):
        epoch = state.step // 4 - 1
        return {key: jnp.asarray(np.float32(each))[epoch] for key, each in figures.items()}

    return evaluate


def tiny(folder, epochs, feed=None, **options):
    options = {"state": TINY, "step": None, "feed": feed or made_up()} | options
    return fitted(folder, epochs=epochs, **options)


@pytest.mark.parametrize("steps", [None, 1, 3])
def test_an_epoch_is_the_mean_of_its_steps_in_pieces_of_any_length(folder, steps):
    evaluate = by_epoch(loss=[0.75], accuracy=[0.25])
    trained = tiny(folder, 1, evaluate=evaluate, checkpoint_steps=steps)
    assert untimed(trained.history) == {
        "train_loss": [sum(LOSSES) / 4],
        "train_accuracy": [0.5],
        "test_loss": [0.75],
        "test_accuracy": [0.25],
    }


def test_a_test_in_pieces_is_the_mean_over_its_examples(folder):
    def evaluate(state, data):
        return {"loss": data[0].mean(), "accuracy": data[1].mean()}

    numbers = jnp.arange(2005.0)  # two pieces of a thousand, and one of five
    trained = tiny(folder, 1, evaluate=evaluate, test=(numbers, -numbers))
    assert trained.history["test_loss"] == [pytest.approx(1002)]
    assert trained.history["test_accuracy"] == [pytest.approx(-1002)]


@pytest.mark.parametrize("bad", [0, 2, 3])
def test_a_refused_step_is_named_and_not_counted(folder, bad):
    good = by_epoch(accuracy=[0.5, 0.5])
    tiny(folder, 1, evaluate=good)
    resumed = RunFolder(folder.path, resume=True)
    words = rf"^gradients\['w'\] of CNN is not finite at step {5 + bad}; .*step_{4 + bad}\.$"
    with pytest.raises(DivergedError, match=words):
        tiny(resumed, 2, made_up(bad), evaluate=good)
    assert [line["step"] for line in lines(folder)] == [4]
    trained = tiny(resumed, 2, evaluate=good)
    assert trained.last.step == 8 and trained.history["train_loss"] == [sum(LOSSES) / 4] * 2


def test_where_the_data_end_the_run_is_saved(folder):
    """A reader killed for want of memory, a disk that is gone: the state is that before it."""
    steps = made_up()

    def compile(*arguments):
        with steps.compile(*arguments) as advance:

            def ending(state, count):
                if state.step == 6:
                    raise InputError("A record cannot be read.")
                return advance(state, min(count, 2))

            return contextlib.nullcontext(ending)

    good = by_epoch(accuracy=[0.5, 0.5])
    words = r"^A record cannot be read; CNN was stopped at step 6, and with --resume .*step_6\.$"
    with pytest.raises(InputError, match=words):
        tiny(folder, 2, steps._replace(compile=compile), evaluate=good)
    trained = tiny(RunFolder(folder.path, resume=True), 2, evaluate=good)
    assert trained.last.step == 8 and trained.history["train_loss"] == [sum(LOSSES) / 4] * 2


def test_a_test_loss_that_is_not_finite_ends_the_run(folder):
    evaluate = by_epoch(loss=[0.5, math.inf], accuracy=[0.5, 0.5])
    with pytest.raises(DivergedError, match=r"^The test loss of CNN is inf after step 8; the conf"):
        tiny(folder, 3, evaluate=evaluate)
    assert restore(folder.checkpoints / "CNN" / "step_8", TINY).step == 8


def test_the_newest_and_the_best_checkpoints_stay(folder):
    evaluate = by_epoch(accuracy=[0.1, 0.9, 0.3, 0.9, 0.4])
    trained = tiny(folder, 5, evaluate=evaluate, checkpoint_steps=5, keep=2)
    with Checkpoints(folder.checkpoints / "CNN") as checkpoints:
        assert checkpoints.steps() == [8, 15, 20]
    assert trained.best_epoch == 2  # the first of two
    assert (int(trained.best.step), int(trained.last.step)) == (8, 20)


def test_the_last_epoch_may_be_the_best(folder):
    trained = tiny(folder, 2, evaluate=by_epoch(accuracy=[0.1, 0.2]))
    assert trained.best_epoch == 2 and trained.best is trained.last


def test_the_least_loss_is_the_best_where_it_is_what_counts(folder):
    evaluate = by_epoch(loss=[0.75, 0.125, 0.25, 0.5, 0.25], bits=[1.0] * 5)
    trained = tiny(folder, 5, evaluate=evaluate, score=least_loss, keep=1)
    assert trained.history["test_bits"] == [1.0] * 5 and trained.best_epoch == 2
    with Checkpoints(folder.checkpoints / "CNN") as checkpoints:
        assert checkpoints.steps() == [8, 20]


def test_a_score_that_the_test_does_not_have_is_named(folder):
    with pytest.raises(InputError, match=r"^the test gives \w+, \w+ and no accuracy to go by"):
        tiny(folder, 2, evaluate=by_epoch(bits=[1.0]))


def test_a_test_without_examples_is_refused_before_any_training(folder):
    with pytest.raises(InputError, match="no examples"):
        tiny(folder, 2, test=jax.tree.map(lambda a: a[:0], TEST))
    assert not (folder.path / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("patience", "epochs"), [(0, 3), (1, 6), (2, 7), (3, 8), (None, 9)], ids=str
)
def test_patience_ends_the_run_and_so_it_stays(folder, patience, epochs):
    """The run ends when the last best score is more than `patience` epochs ago, ties counting."""
    accuracies = [0.1, 0.5, 0.25, 0.75, 0.5, 0.75, 0.5, 0.25, 0.5]
    best = [max(range(n), key=lambda i: (accuracies[i], -i)) for n in range(1, 10)]
    waits = [n - best[n] for n in range(9)]
    expected = next((n + 1 for n in range(9) if patience is not None and waits[n] > patience), 9)
    assert expected == epochs
    evaluate = by_epoch(accuracy=accuracies)
    for _ in range(2):  # run, and resumed
        trained = tiny(folder, 9, evaluate=evaluate, patience=patience)
        assert len(trained.history["test_accuracy"]) == epochs == int(trained.last.step) // 4
        folder = RunFolder(folder.path, resume=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": math.nan}, "epochs must be an integer of at least 1, not nan"),  # without end
        ({"epochs": 0}, "epochs must be"),
        ({"epochs": "2"}, "epochs must be an integer of at least 1, not '2'"),
        ({"keep": 0}, "keep must be"),
        ({"patience": -1}, "patience must be an integer of at least 0"),
        ({"checkpoint_steps": 2.5}, "checkpoint_steps must be"),
        ({"checkpoint_minutes": math.nan}, "checkpoint_minutes must be"),
        ({"validation": 0.1}, r"validation is 0.1, expected a pair .*hold_out"),
        ({"validation": "test"}, "validation is 'test', expected a pair"),
        ({"statistics": "fresh"}, "statistics are 'fresh', expected"),
    ],
)
def test_options_that_are_none_are_refused(folder, options, said):
    with pytest.raises(InputError, match=said):
        tiny(folder, **({"epochs": 1} | options))


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_a_name_that_no_folder_has_is_refused(folder, name):
    with pytest.raises(InputError, match=f"'{name}' is not a network's name"):
        fit(name, TINY, STEP, EVALUATE, made_up(), TEST, epochs=1, folder=folder)


VALIDATION = RNG.normal(size=(5, 4, 4, 1)).astype(np.float32), RNG.integers(0, 3, 5)


def on_sets(validation, test):
    """An evaluation whose accuracies by epoch depend on the set, told by its size."""

    def evaluate(state, data):
        accuracies = validation if len(data[1]) == 5 else test
        epoch = state.step // 4 - 1
        return {"loss": jnp.ones(()), "accuracy": jnp.asarray(np.float32(accuracies))[epoch]}

    return evaluate


def test_validation_chooses_and_the_test_is_measured_once(folder):
    evaluate = on_sets([0.25, 0.75, 0.5, 0.5, 0.5], [0.125, 0.375, 1.0, 1.0, 1.0])
    for _ in range(2):  # run, and resumed
        options = {"validation": VALIDATION, "patience": 1, "evaluate": evaluate}
        trained = tiny(folder, 5, **options)
        assert trained.history["validation_accuracy"] == [0.25, 0.75, 0.5, 0.5]
        assert not [key for key in trained.history if key.startswith("test_")]
        assert trained.best_epoch == 2 and int(trained.chosen.step) == 8
        assert trained.tested.as_json() == {
            "epoch": 2,
            "chosen_on": "validation",
            "test": {"loss": 1.0, "accuracy": 0.375},
            "validation": {"loss": 1.0, "accuracy": 0.75},
        }
        assert folder.measures() == {"CNN": trained.tested.as_json()}
        folder = RunFolder(folder.path, resume=True)
    with pytest.raises(InputError, match="a training of CNN on a validation set, which only the"):
        tiny(folder, 5, evaluate=evaluate)


def test_without_validation_it_is_said_what_chose(folder):
    evaluate = by_epoch(accuracy=[0.1, 0.9, 0.3])
    last = tiny(folder, 3, evaluate=evaluate)
    assert (last.tested.epoch, last.tested.chosen_on, int(last.chosen.step)) == (3, None, 12)
    assert last.tested.metrics["accuracy"] == np.float32(0.3)
    again = RunFolder(folder.path, resume=True)
    best = tiny(again, 3, evaluate=evaluate, patience=5)
    assert (best.tested.epoch, best.tested.chosen_on, int(best.chosen.step)) == (2, "test", 8)
    assert best.tested.metrics["accuracy"] == np.float32(0.9)


def test_a_validated_run_resumes_to_the_bit_with_measures_of_all_outputs(folder, tmp_path):
    options = {"validation": VALIDATION, "epochs": 3}
    whole = fitted(RunFolder.create(tmp_path / "whole", Config()), **options)
    with pytest.raises(Exception, match="Stopped"):
        fitted(folder, evaluate=ends_the_second_epoch, **options)
    resumed = fitted(RunFolder(folder.path, resume=True), **options)
    assert_same_bits(resumed.last, whole.last)
    assert untimed(resumed.history) == untimed(whole.history)
    assert resumed.tested.as_json() == whole.tested.as_json()
    best = whole.best
    outputs: Any = Net().apply({"params": best.params, "batch_stats": best.batch_stats}, TEST[0])
    assert whole.tested.measures is not None
    found, expected = whole.tested.measures, measure(outputs, TEST[1])
    np.testing.assert_array_equal(found.confusion, expected.confusion)
    assert found.reliability.error == pytest.approx(expected.reliability.error)
    assert whole.tested.metrics["accuracy"] == pytest.approx(found.accuracy)
    wrong = [each["example"] for each in whole.tested.errors]
    assert sorted(wrong) == np.flatnonzero(outputs.argmax(1) != TEST[1]).tolist()


def test_the_norm_of_the_gradient_leaves_the_bits_and_rates_are_recorded(folder):
    """Of one step on all examples: plain gradient descent moves by the rate times the gradient."""
    optimizer = optax.inject_hyperparams(optax.sgd)(optax.linear_schedule(0.5, 0.0, 2))
    plain, measured = (stepping(optimizer, gradient_norm=on) for on in (False, True))
    feed = in_memory(TRAIN, 18)
    without = fitted(folder, **plain, feed=feed, epochs=1)
    trained = fitted(
        RunFolder.create(folder.path / "norm", Config()), **measured, feed=feed, epochs=1
    )
    assert_same_bits(trained.last, without.last)
    assert untimed(without.history).items() <= trained.history.items()
    assert trained.history["learning_rate"] == [0.5]
    moved = jax.tree.map(jnp.subtract, start().params, trained.last.params)
    squares = sum(float((np.asarray(leaf, float) ** 2).sum()) for leaf in jax.tree.leaves(moved))
    assert trained.history["train_gradient_norm"] == [pytest.approx(2 * squares**0.5, rel=1e-5)]


def test_a_schedule_that_is_given_is_recorded_and_no_rate_is_made_up(folder):
    good = by_epoch(accuracy=[0.5, 0.5])
    schedule = optax.linear_schedule(1.0, 0.0, 8)
    trained = tiny(folder, 2, evaluate=good, learning_rate=schedule)
    assert trained.history["learning_rate"] == [0.625, 0.125]  # of steps 4 and 8, from 1
    for recipe in (adder_recipe, deep_recipe):
        step = train_step(Net(), recipe(8, schedule))
        folder = RunFolder.create(folder.path / "recipe", Config())
        trained = tiny(folder, 2, evaluate=good, step=step)
        assert trained.history["learning_rate"] == [0.625, 0.125]
    folder = RunFolder.create(folder.path / "other", Config())
    assert "learning_rate" not in tiny(folder, 2, evaluate=good).history


class Adders(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = batch_norm(train)(ADDER.dense(4)(x.reshape(len(x), -1)))
        return nn.Dense(3)(nn.relu(x))


def test_statistics_of_adders_are_taken_anew_and_training_keeps_its_bits(tmp_path):
    evaluate, optimizer = evaluation(Adders()), optax.sgd(0.1)
    state = init(jax.random.key(0), Adders(), optimizer, TRAIN[0])
    step = train_step(Adders(), optimizer)
    feed, trained = in_memory(TRAIN, BATCH), {}
    program: Any = feed.compile(step, state, None).__enter__()
    feed = feed._replace(compile=lambda *_: contextlib.nullcontext(program))
    options: Any = {"epochs": 2, "diagnose": False}
    for name, statistics in (("fresh", "auto"), ("running", None)):
        folder = RunFolder.create(tmp_path / name, Config())
        options |= {"folder": folder, "statistics": statistics}
        trained[name] = fit(name, state, step, evaluate, feed, TEST, **options)
    fresh, running = trained["fresh"], trained["running"]
    last = (tmp_path / name / "checkpoints" / name / "step_8" for name in trained)
    assert_same_bits(*(restore(path, state) for path in last))
    assert feed.sample is not None
    renew = fresh_statistics(Adders(), feed.sample(20), BATCH)
    assert_same_bits(fresh.last, renew(running.last))
    for each in trained.values():
        assert each.history["test_loss"][-1] == float(evaluate(each.last, TEST)["loss"])
    assert fresh.history["test_loss"] != running.history["test_loss"]
    assert fresh.history["train_loss"] == running.history["train_loss"]
