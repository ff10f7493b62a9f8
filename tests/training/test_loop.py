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
from nnlab.training import RunFolder, evaluation, fit, init, restore, train_epoch, train_step

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


def fitted(folder, step: Any = STEP, epochs=3, batch_size=BATCH):
    options = {"epochs": epochs, "batch_size": batch_size, "folder": folder}
    return fit("CNN", start(), step, EVALUATE, TRAIN, TEST, **options)


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


def test_trains_epochs_and_leaves_metrics_and_a_checkpoint(folder, capfd):
    state, history = fitted(folder)
    expected, metrics = after(3)
    assert_same_bits(state, expected)
    assert state.step == 12
    for name in ("loss", "accuracy"):
        assert history[f"train_{name}"] == [float(m[name].mean()) for m in metrics]
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
    with pytest.raises(InputError, match=r"^--batch-size must be at most the 18 images, not 19\.$"):
        fitted(folder, batch_size=19)
    assert not (folder.path / "metrics.jsonl").exists()
    assert fitted(folder, epochs=1, batch_size=18)[0].step == 1


def test_a_name_is_trained_once_in_a_folder(folder):
    fitted(folder, epochs=1)
    before = lines(folder)
    with pytest.raises(InputError, match="already holds checkpoints of CNN; give another name"):
        fitted(folder, epochs=1)
    assert lines(folder) == before


def poisoned(number, what):
    """A step whose update `number`, counted from 1, goes wrong."""

    def step(state, batch):
        after, metrics = STEP(state, batch)
        now = after.step == number
        if what == "update":
            spoiled = jax.tree.map(lambda p: jnp.where(now, jnp.nan, p), after.params)
            return after._replace(params=spoiled), metrics
        return after, metrics | {"loss": jnp.where(now, what, metrics["loss"])}

    return step


@pytest.mark.parametrize(
    ("number", "what", "words"),
    [
        (1, np.nan, "is nan at step 1, in the epoch of steps 1 to 4"),
        (7, np.inf, "is inf at step 7, in the epoch of steps 5 to 8"),
        (8, -np.inf, "is -inf at step 8, in the epoch of steps 5 to 8"),
        (6, "update", "is nan at step 7, in the epoch of steps 5 to 8"),
        # No step of this epoch sees the broken parameters, only the evaluation behind it.
        (8, "update", "is nan in evaluation after step 8, in the epoch of steps 5 to 8"),
    ],
)
def test_a_loss_that_is_not_finite_ends_the_run_at_the_last_good_state(folder, number, what, words):
    with pytest.raises(DivergedError, match=f"^The loss of CNN {words}") as error:
        fitted(folder, poisoned(number, what))
    good = 0 if number <= 4 else 1
    path = folder.checkpoints / "CNN" / f"step_{4 * good}"
    assert str(folder.path / "config.json") in str(error.value)
    assert str(error.value).endswith(f"the last good checkpoint is {path}.")
    assert (folder.path / "config.json").is_file()
    assert_same_bits(restore(path, start()), after(good)[0])
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert [line["step"] for line in lines(folder)] == [4, 8][:good]


def test_a_huge_learning_rate_diverges(folder):
    huge = optax.sgd(1e30, 0.9)  # a state of the same structure
    with pytest.raises(DivergedError, match=r"of CNN is (nan|inf) at step [2-4], .* steps 1 to 4"):
        fitted(folder, train_step(Net(), huge))
    assert_same_bits(restore(folder.checkpoints / "CNN" / "step_0", start()), start())
