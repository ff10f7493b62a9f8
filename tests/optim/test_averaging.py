"""The average of the weights against a loop in float64, and inside other transformations."""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.errors import InputError
from nnlab.optim import adder_recipe, average_weights, averaged_weights
from nnlab.training import evaluation, init, train_step

PARAMS = {"a": jnp.array([1.0, -2.0]), "b": {"adder_kernel": jnp.ones((3, 1))}}


def trained(optimizer, grads, params: Any = PARAMS):
    """All weights after an update, and the averages beside them."""

    @jax.jit
    def step(g, state, params):
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    state, weights, averages = optimizer.init(params), [], []
    for g in grads:
        params, state = step(g, state, params)
        weights.append(params)
        averages.append(averaged_weights(state))
    return weights, averages


def gradients(count):
    rng = np.random.default_rng(0)
    return [
        jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), PARAMS)
        for _ in range(count)
    ]


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.9999])
def test_equals_the_weighted_mean_of_all_weights_so_far(decay):
    optimizer = optax.chain(optax.sgd(0.1, 0.9), average_weights(decay))
    weights, averages = trained(optimizer, gradients(30))
    for t, average in enumerate(averages, 1):
        shares = decay ** np.arange(t - 1.0, -1, -1)
        shares /= shares.sum()
        for path, got in jax.tree_util.tree_leaves_with_path(average):
            leaves = [dict(jax.tree_util.tree_leaves_with_path(w))[path] for w in weights[:t]]
            expected = np.tensordot(shares, np.array(leaves, np.float64), 1)
            # A step rounds the share, its complement, two products and their sum, each 2^-24 of
            # numbers up to 8; 1 - d with d in float64 rounds once.
            assert np.abs(expected).max() < 8
            np.testing.assert_allclose(got, expected, rtol=0, atol=6 * t * 8 * 2**-24)


def test_the_first_average_forgets_the_initial_weights():
    optimizer = optax.chain(optax.sgd(1.0), average_weights(0.999))
    (after,), (average,) = trained(optimizer, gradients(1))
    # The share is a quotient of two roundings, so the initial weights keep 2^-22 at most.
    chex.assert_trees_all_close(average, after, rtol=0, atol=4 * 2**-22)


def test_golden_value():
    # decay 1/2, weights 1 and 4: (1/2 · 1 + 4) / (1/2 + 1) = 3
    optimizer = optax.chain(optax.identity(), average_weights(0.5))
    _, averages = trained(optimizer, [jnp.float32(1.0), jnp.float32(3.0)], jnp.float32(0.0))
    assert [float(a) for a in averages] == pytest.approx([1, 3], rel=6 * 2**-24)


def test_updates_pass_through_unchanged():
    optimizer = optax.sgd(0.1, 0.9)
    plain, averaged = optimizer, optax.chain(optimizer, average_weights())
    states = plain.init(PARAMS), averaged.init(PARAMS)

    @jax.jit
    def updates(g, one, two):
        return plain.update(g, one, PARAMS), averaged.update(g, two, PARAMS)

    for g in gradients(3):
        (one, first), (two, second) = updates(g, *states)
        chex.assert_trees_all_equal(one, two)
        states = first, second


def test_before_a_step_it_is_the_initial_weights_in_other_buffers():
    optimizer = average_weights()
    state = optimizer.init(PARAMS)
    chex.assert_trees_all_equal(averaged_weights(state), PARAMS)
    donating = jax.jit(lambda p, s: optimizer.update(p, s, p), donate_argnums=(0, 1))
    donating(jax.tree.map(jnp.copy, PARAMS), state)
    assert not PARAMS["a"].is_deleted()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_weights_have_a_float32_average_that_moves(dtype):
    optimizer = optax.chain(optax.identity(), average_weights(0.999))
    params = np.ones(2, dtype)
    state, advance = optimizer.init(params), jax.jit(optimizer.update)
    for update in (0.0, 1.0):
        _, state = advance(np.full(2, update, dtype), state, params)
    average = averaged_weights(state)
    assert average.dtype == jnp.float32
    # (0.999 · 1 + 2) / 1.999, the share rounded by about 2^-23 / (1 - 0.999) of itself
    assert float(average[0]) == pytest.approx(2.999 / 1.999, rel=2**-23 / 1e-3)


def test_does_not_recompile():
    optimizer = optax.chain(adder_recipe(10), average_weights())
    update = jax.jit(chex.assert_max_traces(optimizer.update, n=1))
    state = optimizer.init(PARAMS)
    for _ in range(3):
        _, state = update(PARAMS, state, PARAMS)


def test_on_a_parabola_it_is_nearer_to_the_minimum_than_noisy_weights():
    target, optimizer = jnp.array([3.0, -1.0]), optax.chain(optax.sgd(0.2), average_weights(0.98))

    def step(carry, noise):
        w, state = carry
        updates, state = optimizer.update(2 * (w - target) + noise, state, w)
        w = w + updates
        return (w, state), jnp.linalg.norm(w - target)

    noise = np.random.default_rng(0).normal(size=(600, 2)).astype(np.float32)
    w: Any = jnp.zeros(2)
    run = jax.jit(lambda w, state: jax.lax.scan(step, (w, state), noise))
    (_, state), distances = run(w, optimizer.init(w))
    # With rate 0.2, w follows d -> 0.6 d - 0.2 noise, standard deviation 0.2 / sqrt(1 - 0.36) =
    # 0.25 a coordinate; the mean of (1 + 0.98) / (1 - 0.98) = 99 noises of 0.2 / (1 - 0.6) has
    # 0.5 / sqrt(99) = 0.05. Four of these in two coordinates:
    average: Any = averaged_weights(state)
    assert np.linalg.norm(average - target) < 4 * 0.05 * 2**0.5
    assert np.asarray(distances)[-100:].mean() > 0.25


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: optax.chain(optax.clip(1.0), inner),
        lambda inner: optax.apply_if_finite(inner, 3),
        lambda inner: optax.partition({"all": inner}, lambda p: jax.tree.map(lambda _: "all", p)),
        lambda inner: optax.MultiSteps(inner, 2).gradient_transformation(),
    ],
)
def test_it_is_found_wherever_it_is(wrap):
    optimizer = wrap(optax.chain(adder_recipe(10), average_weights()))
    chex.assert_trees_all_equal(averaged_weights(optimizer.init(PARAMS)), PARAMS)


def test_a_skipped_update_does_not_count():
    optimizer = optax.apply_if_finite(optax.chain(optax.sgd(1.0), average_weights(0.5)), 9)
    grads = [jnp.float32(g) for g in (-1.0, float("nan"), -3.0)]
    _, averages = trained(optimizer, grads, jnp.float32(0.0))
    # Weights 1 and 4 as in the golden value.
    assert [float(a) for a in averages] == pytest.approx([1, 1, 3], rel=6 * 2**-24)


def test_evaluation_by_the_average():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(3)(x)

    model = Net()
    optimizer = optax.chain(adder_recipe(10, 0.5), average_weights(0.5))
    rng = np.random.default_rng(0)
    data = rng.normal(size=(6, 4)).astype(np.float32), np.arange(6) % 3
    state = init(jax.random.key(0), model, optimizer, data[0])
    step = jax.jit(train_step(model, optimizer), donate_argnums=0)
    for _ in range(3):
        state, _ = step(state, data)
    average, plain = averaged_weights(state.opt_state), evaluation(model)
    by_hand = plain(state._replace(params=average), data)
    chosen = evaluation(model, weights=lambda s: averaged_weights(s.opt_state))(state, data)
    chex.assert_trees_all_equal(chosen, by_hand)
    assert chosen["loss"] != plain(state, data)["loss"]


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, float("nan")])
def test_the_decay_is_checked(decay):
    with pytest.raises(InputError, match=f"^decay must be a number between 0 and 1, not {decay}"):
        average_weights(decay)


@pytest.mark.parametrize("count", [0, 2])
def test_one_average_is_expected(count):
    state = optax.chain(optax.sgd(0.1), *[average_weights()] * count).init(PARAMS)
    with pytest.raises(InputError, match=f"optimiser holds {count} averages; expected one"):
        averaged_weights(state)


def test_the_error_without_parameters_says_what_to_pass():
    optimizer = average_weights()
    with pytest.raises(ValueError, match=r"needs the parameters: update\(updates, state, params\)"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))
