"""A step of two networks against one by hand, what it refuses, and a training that is resumed."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.arithmetics import ADDER, FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.runs import Run, fit, least_loss
from nnlab.runs.checkpoints import restore, save
from nnlab.training import in_memory, leaf_name
from nnlab.training.adversarial import WASSERSTEIN
from nnlab.training.two_player import generate, init_players, two_player_step

RNG = np.random.default_rng(0)
REAL = jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
CLASSES = jnp.arange(6) % 2
SGD = optax.sgd(0.1), optax.sgd(0.2)


class Generator(nn.Module):
    """A point whatever the latents are, so that a step can be followed by hand."""

    @nn.compact
    def __call__(self, inputs, train=False):
        return nn.Dense(3, kernel_init=nn.initializers.zeros)(inputs)


class Critic(nn.Module):
    norm: bool = False

    @nn.compact
    def __call__(self, inputs, train=False):
        if self.norm:
            inputs = nn.BatchNorm(use_running_average=not train)(inputs)
        return nn.Dense(1, use_bias=False)(inputs)[:, 0]


def begun(critic=None) -> Any:
    return init_players(
        jax.random.key(0), Generator(), critic or Critic(), SGD, jnp.zeros((1, 2)), REAL
    )


@pytest.fixture(scope="module")
def step():
    options: Any = dict(latents=2, critic_steps=2, penalty=0.0)
    return jax.jit(two_player_step(Generator(), Critic(), SGD, WASSERSTEIN, **options))


def test_two_steps_of_the_critic_and_one_of_the_generator(step):
    before = begun()
    bias, w = (before.params[who]["Dense_0"] for who in ("generator", "critic"))
    bias, w = np.asarray(bias["bias"]), np.asarray(w["kernel"])[:, 0]
    losses = []
    for part in np.asarray(REAL).reshape(2, 3, 3):
        losses.append((bias - part.mean(0)) @ w)
        w = w - 0.2 * (bias - part.mean(0))
    after, metrics = step(before, (REAL, CLASSES))
    np.testing.assert_allclose(after.params["critic"]["Dense_0"]["kernel"][:, 0], w, 1e-5)
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), 1e-4, 1e-6)
    np.testing.assert_allclose(metrics["generator_loss"], -bias @ w, 1e-5, 1e-7)
    moved = after.params["generator"]["Dense_0"]["bias"]
    np.testing.assert_allclose(moved, bias + 0.1 * w, 1e-5)
    assert (int(after.step), int(after.critic.step)) == (1, 2)
    again = step(before, (REAL, CLASSES))[0]
    assert all(map(np.array_equal, jax.tree.leaves(after.params), jax.tree.leaves(again.params)))


def test_a_number_that_is_not_finite_leaves_both_as_they_were(step):
    before = begun()
    after, metrics = step(before, (REAL.at[4, 1].set(jnp.nan), CLASSES))
    assert leaf_name(before, int(metrics["nonfinite"])) == "loss"
    assert int(after.step) == int(after.critic.step) == 0
    same = map(np.array_equal, jax.tree.leaves(after.params), jax.tree.leaves(before.params))
    assert all(same)


@pytest.mark.slow
def test_states_are_saved_and_read_again(step, tmp_path):
    after, _ = step(begun(), (REAL, CLASSES))
    save(tmp_path / "players", after)
    read = restore(tmp_path / "players", like=begun())
    left, right = (step(state, (REAL, CLASSES))[0].params for state in (after, read))
    assert all(map(np.array_equal, jax.tree.leaves(left), jax.tree.leaves(right)))


def test_what_it_refuses():
    with pytest.raises(InputError, match="6 is not one of 4 equal parts"):
        two_player_step(Generator(), Critic(), SGD, latents=2, critic_steps=4)(
            begun(), (REAL, CLASSES)
        )
    with pytest.raises(InputError, match="batch normalisation"):
        normalises = Critic(norm=True)
        two_player_step(Generator(), normalises, SGD, latents=2, penalty=10)(
            begun(normalises), (REAL, CLASSES)
        )
    wrong: Any = ({"latents": 0}, {"latents": 2, "penalty": -1.0})
    for options in wrong:
        with pytest.raises(InputError):
            two_player_step(Generator(), Critic(), SGD, **options)


class Conditional(nn.Module):
    features: int

    @nn.compact
    def __call__(self, inputs, train=False):
        x, classes = inputs
        return nn.Dense(self.features)(jnp.concatenate([x, jax.nn.one_hot(classes, 2)], 1))


@pytest.mark.slow
@pytest.mark.parametrize("generator_batch", [None, 5])
def test_classes_and_penalty(generator_batch):
    generator, critic = Conditional(3), Conditional(1)
    latents = jnp.zeros((6, 2)), CLASSES
    players = init_players(jax.random.key(0), generator, critic, SGD, latents, (REAL, CLASSES))
    options: Any = dict(latents=2, conditional=True, generator_batch=generator_batch, penalty=10.0)
    step = two_player_step(generator, critic, SGD, WASSERSTEIN, **options)
    after, metrics = jax.jit(step)(players, (REAL, CLASSES))
    slope = np.linalg.norm(players.params["critic"]["Dense_0"]["kernel"][:3])
    np.testing.assert_allclose(metrics["penalty"], (slope - 1) ** 2, 1e-4)
    made = generate(generator, after.generator, latents, batch_size=4)
    assert made.shape == (6, 3)


@pytest.mark.slow
def test_a_training_is_stopped_and_resumed_to_the_bit(tmp_path):
    """As `fit` does it with any state; a training of two leaves what that of one does."""
    step: Any = two_player_step(Generator(), Critic(), SGD, WASSERSTEIN, latents=2)

    def evaluate(players, batch):
        return {"loss": jnp.square(players.params["generator"]["Dense_0"]["bias"]).mean()}

    def train(epochs, folder):
        feed = in_memory((np.asarray(REAL), np.asarray(CLASSES)), 2)
        test = np.asarray(REAL), np.asarray(CLASSES)
        options: Any = dict(epochs=epochs, folder=folder, score=least_loss)
        return fit("players", begun(), step, evaluate, feed, test, **options)

    with Run(str(tmp_path / "whole")).open() as record:
        whole = train(3, record.folder)
    with Run(str(tmp_path / "parts")).open() as record:
        train(1, record.folder)
    with Run(str(tmp_path / "parts"), resume=True).open() as record:
        parts = train(3, record.folder)
    assert whole.history["train_generator_loss"] == parts.history["train_generator_loss"]
    left, right = whole.last.params, parts.last.params
    assert all(map(np.array_equal, jax.tree.leaves(left), jax.tree.leaves(right)))


class Judge(nn.Module):
    arithmetic: Arithmetic

    @nn.compact
    def __call__(self, x, train=False):
        x = self.arithmetic.dense(32)(x)
        if self.arithmetic.needs_norm:
            x = nn.LayerNorm()(x)
        return nn.Dense(1)(nn.relu(x))[:, 0]


class Line(nn.Module):
    @nn.compact
    def __call__(self, z, train=False):
        return nn.Dense(2)(z)


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", [FLOAT, ADDER], ids=lambda each: each.name)
def test_a_generator_finds_where_the_examples_are(arithmetic):
    """A Gaussian far from where it starts, by the gradient penalty, critics of either kind."""
    real = (np.array([3, -2]) + 0.5 * RNG.normal(size=(4000, 2))).astype(np.float32)
    optimizers = optax.adam(0.02, b1=0.5), optax.adam(0.01, b1=0.5)
    generator, critic = Line(), Judge(arithmetic)
    key, z = jax.random.key(0), jax.random.normal(jax.random.key(1), (2000, 2))
    players: Any = init_players(key, generator, critic, optimizers, z, real)
    options: Any = dict(latents=2, critic_steps=5, penalty=1.0)
    step: Any = two_player_step(generator, critic, optimizers, WASSERSTEIN, **options)
    feed = in_memory((real, np.zeros(len(real))), 200)  # 20 steps an epoch
    with feed.compile(step, players, None) as advance:
        state: Any = jax.tree.map(jnp.copy, players)
        for _ in range(20):
            state, metrics = advance(state, 20)
            assert (metrics["nonfinite"] < 0).all()
    made = generate(generator, state.generator, z)
    before = np.linalg.norm(generate(generator, players.generator, z).mean(0) - real.mean(0))
    assert np.linalg.norm(made.mean(0) - real.mean(0)) < 0.5 < 3 < before
