"""Pruning: the published schedule, exact numbers of zeros that stay, and SR-STE's term."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.errors import InputError
from nnlab.optim import (
    adder_recipe,
    cubic_sparsity,
    decay_pruned,
    kernel_mask,
    prune,
)

RNG = np.random.default_rng(0)


def tree() -> Any:
    def leaf(*shape):
        return RNG.normal(size=shape).astype(np.float32)

    return {"a": {"kernel": leaf(10, 4)}, "b": {"adder_kernel": leaf(5, 20), "bias": leaf(5)}}


def weights(params: Any) -> jax.Array:
    return params["a"]["kernel"]


def zeros(params):
    """Parameters called kernel, adder_kernel and bias."""
    return [int((np.asarray(x) == 0).sum()) for x in jax.tree.leaves(params)]


def test_schedule():
    schedule = cubic_sparsity(0.9, 10, 30, initial=0.1)
    # halfway 0.9 - 0.8 / 8 = 0.8, at a quarter 0.9 - 0.8 · 27/64 = 0.5625
    values = [float(jnp.asarray(schedule(step))) for step in (0, 9, 10, 15, 20, 30, 1000)]
    assert values == pytest.approx([0, 0, 0.1, 0.5625, 0.8, 0.9, 0.9], rel=1e-6)  # float32


def test_zeros_follow_the_schedule_and_stay():
    pruning = optax.masked(prune(cubic_sparsity(0.8, 2, 8), every=2), kernel_mask)
    optimizer = optax.chain(adder_recipe(20), pruning)
    params: Any = tree()
    state = optimizer.init(params)

    @jax.jit
    def step(g, state, params):
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    gone, seen = np.zeros(40, bool), []
    for _ in range(12):
        params, state = step(tree(), state, params)
        now = np.asarray(weights(params)).ravel() == 0
        assert not (gone & ~now).any()
        gone = now
        seen.append(zeros(params))
    # At steps 2, 4, 6, 8 with 0, 0.8 (1 - 8/27), 0.8 (1 - 1/27), 0.8: of 40 and 100
    by_two = [[0, 0, 0], [0, 0, 0], [23, 56, 0], [31, 77, 0], [32, 80, 0], [32, 80, 0]]
    assert seen == [row for row in by_two for _ in range(2)]


def test_which_weights_go_by_layer_and_over_all():
    params = {
        "small": np.array([1, 2, 3, 4], np.float32),
        "large": np.array([10, 20, 30, -2.5], np.float32),
    }
    updates = jax.tree.map(np.zeros_like, params)

    def pruned(scope) -> Any:
        transformation = prune(optax.constant_schedule(0.5), scope=scope)
        new, _ = jax.jit(transformation.update)(updates, transformation.init(params), params)
        return jax.tree.map(lambda p, u: (p + np.asarray(u)).tolist(), params, new)

    assert pruned("layer") == {"small": [0, 0, 3, 4], "large": [0, 20, 30, 0]}
    assert pruned("global") == {"small": [0, 0, 0, 4], "large": [10, 20, 30, 0]}


def test_decides_by_the_weights_that_the_update_leads_to():
    params = {"kernel": jnp.array([1.0, 2.0])}
    transformation = prune(optax.constant_schedule(0.5))
    state = transformation.init(params)
    result: Any = transformation.update({"kernel": jnp.array([5.0, 0.0])}, state, params)
    assert result[0]["kernel"].tolist() == [5, -2]


def test_does_not_recompile():
    transformation = prune(cubic_sparsity(0.5, 1, 3))

    @jax.jit
    @chex.assert_max_traces(n=1)
    def update(g, state, params):
        return transformation.update(g, state, params)

    params = {"kernel": jnp.arange(6.0)}
    state = transformation.init(params)
    for _ in range(4):
        _, state = update(params, state, params)


def test_minimises_a_parabola_in_the_coordinates_that_are_left():
    target = jnp.array([3.0, -0.4, 0.2, 1.7])
    optimizer = optax.chain(optax.sgd(0.3), prune(cubic_sparsity(0.5, 10, 20)))
    w: Any = jnp.zeros(4)
    state = optimizer.init(w)
    step = jax.jit(lambda w, state: optimizer.update(w - target, state, w))
    for _ in range(100):
        updates, state = step(w, state)
        w = optax.apply_updates(w, updates)
    # The error falls by 0.7 a step, 0.7^100 = 3e-16: float32's last bits are left.
    np.testing.assert_allclose(np.asarray(w), [3, 0, 0, 1.7], rtol=2**-20)


def test_decay_is_that_of_pruned_weights_alone():
    w = {"kernel": np.array([1, -3, 0.5, 2], np.float32).reshape(4, 1)}
    g = {"kernel": np.zeros((4, 1), np.float32)}
    transformation = decay_pruned(2, 4, 0.25)
    result: Any = jax.jit(transformation.update)(g, transformation.init(w), w)
    assert result[0]["kernel"].ravel().tolist() == [0.25, 0, 0.125, 0]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: cubic_sparsity(1.0, 0, 1), "sparsities .* not 0.0 and 1.0"),
        (lambda: cubic_sparsity(float("nan"), 0, 1), "sparsities .* not 0.0 and nan"),
        (lambda: cubic_sparsity(0.5, 3, 3), "steps 0 <= begin < end, not 3 and 3"),
        (lambda: prune(optax.constant_schedule(0.5), every=0), "every .* not 0"),
        (lambda: prune(optax.constant_schedule(0.5), scope="all"), "scope .* not all"),  # pyright: ignore[reportArgumentType]
        (lambda: decay_pruned(4, 2), "not 4:2"),
    ],
)
def test_bad_options_are_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


@pytest.mark.parametrize("make", [lambda: prune(optax.constant_schedule(0.5)), decay_pruned])
def test_the_parameters_are_needed(make):
    params = {"kernel": jnp.ones((4, 1))}
    transformation = make()
    with pytest.raises(ValueError, match="needs the parameters"):
        transformation.update(params, transformation.init(params))
