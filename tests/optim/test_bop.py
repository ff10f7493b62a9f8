"""Bop against a loop over scalars, exact flips, and a binary problem that it solves."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.errors import InputError
from nnlab.ops.binary import sign_ste
from nnlab.optim import adder_recipe, bop


@jax.jit
def first_update(w):
    optimizer: Any = bop()
    updates, _ = optimizer.update(jnp.zeros_like(w), optimizer.init(w), w)
    return optax.apply_updates(w, updates)


signs = jax.jit(sign_ste)


def by_hand(w, gradients, threshold, gamma):
    """Algorithm 1, weight by weight in float64, after each step."""
    w, m, history = list(w), [0.0] * len(w), []
    for g in gradients:
        for i in range(len(w)):
            m[i] = (1 - gamma) * m[i] + gamma * g[i]
            if abs(m[i]) > threshold and (m[i] > 0) == (w[i] > 0):
                w[i] = -w[i]
        history.append(list(w))
    return history


@pytest.mark.parametrize(("threshold", "gamma"), [(0.25, 0.25), (0.0, 0.5), (0.1, 1.0)])
def test_equals_the_published_algorithm(threshold, gamma):
    rng = np.random.default_rng(0)
    # Multiples of 1/4 and powers of two: averages over seven steps are exact in float32 too.
    gradients = rng.integers(-8, 9, (7, 30)) / 4
    start = rng.choice([-1.0, 1.0], 30)
    optimizer: Any = bop(threshold, gamma)
    w: Any = start.astype(np.float32)
    state, update = optimizer.init(w), jax.jit(optimizer.update)
    flips = 0
    for g, expected in zip(gradients, by_hand(start, gradients, threshold, gamma), strict=True):
        updates, state = update(g.astype(np.float32), state, w)
        flips += np.count_nonzero(updates)
        w = w + np.asarray(updates)
        assert w.tolist() == expected
    assert flips > 20


def test_golden_values():
    # gamma 1/2: averages 1, 1, -1, 1/4 and -1/4, of which the last two are not above 1/4.
    w, g = np.array([1, -1, -1, 1, -1], np.float32), np.array([2, 2, -2, 0.5, -0.5], np.float32)
    optimizer: Any = bop(threshold=0.25, gamma=0.5)
    updates, state = jax.jit(optimizer.update)(g, optimizer.init(w), w)
    assert np.asarray(updates).tolist() == [-2, 0, 2, 0, 0]
    assert state.mean.tolist() == [1, 1, -1, 0.25, -0.25] and state.count == 1


@pytest.mark.parametrize(("dtype", "largest"), [(jnp.bfloat16, 2.0**8), (jnp.float16, 2.0**11)])
def test_any_narrow_number_becomes_its_sign_exactly(dtype, largest):
    every = np.arange(2**16, dtype=np.uint16).view(dtype)
    every = every[np.abs(every) <= largest]
    assert len(every) > 30_000
    after = first_update(every)
    assert after.dtype == dtype
    np.testing.assert_array_equal(after, signs(every))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-(2.0**24), 2.0**24, width=32), min_size=40, max_size=40))
def test_any_number_becomes_its_sign_exactly(weights):
    w = np.float32(weights)
    np.testing.assert_array_equal(first_update(w), signs(w))


def test_gamma_may_be_a_schedule():
    optimizer: Any = bop(gamma=optax.piecewise_constant_schedule(0.5, {1: 0.5}))
    w = np.ones(1, np.float32)
    state, update, means = optimizer.init(w), jax.jit(optimizer.update), []
    for _ in range(3):
        _, state = update(w, state, w)
        means.append(float(state.mean[0]))
    # 1/2; then 3/4 of it and 1/4, twice
    assert means == [0.5, 0.625, 0.71875]


def test_narrow_gradients_are_averaged_in_float32():
    w = jnp.ones(4, jnp.bfloat16)
    optimizer: Any = bop(threshold=1.0, gamma=2.0**-10)
    state: Any = optimizer.init(w)
    update = jax.jit(optimizer.update)
    for _ in range(2):  # 1 - 2^-10 would be 1 in bfloat16
        updates, state = update(np.full(4, 2.0**10, jnp.bfloat16), state, w)
    assert state.mean.dtype == jnp.float32
    assert state.mean.tolist() == [2 - 2**-10] * 4
    assert np.asarray(updates).tolist() == [-2] * 4


def test_finds_the_signs_of_the_minimum_of_a_parabola():
    target = np.random.default_rng(0).normal(size=50).astype(np.float32)
    optimizer: Any = bop(threshold=1e-3, gamma=0.1)

    def step(carry, _):
        w, state = carry
        updates, state = optimizer.update(w - target, state, w)
        return (optax.apply_updates(w, updates), state), None

    # Inside (-1, 1) the gradient w - t has the sign of w: Bop would flip for ever, as the minimum
    # over signs is no place where the gradient vanishes. With |t| > 1 it is, and is kept.
    far = np.abs(target) > 1
    assert 10 < far.sum() < 40

    @jax.jit
    def end(w: Any) -> Any:
        return jax.lax.scan(step, (w, optimizer.init(w)), length=100)[0][0]

    w = np.asarray(end(np.ones(50, np.float32)))
    np.testing.assert_array_equal(w[far], np.sign(target[far]))


def test_rosenbrock_over_signs():
    def rosenbrock(w):  # on signs 0 at (1, 1), 4 at (-1, 1), 400 more where w_1 is -1
        return (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2

    optimizer: Any = bop(threshold=1e-3, gamma=0.1)

    def step(carry, _):
        w, state = carry
        updates, state = optimizer.update(jax.grad(rosenbrock)(w), state, w)
        return (optax.apply_updates(w, updates), state), None

    # At (-1, 1) the slope is -4 along w_0, so w_0 goes to +1; at the minimum it is 0.
    @jax.jit
    def end(w):
        return jax.lax.scan(step, (w, optimizer.init(w)), length=200)[0][0]

    for start in ([1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]):
        assert end(np.array(start, np.float32)).tolist() == [1, 1], start


def test_as_the_binary_part_of_the_recipe_weights_are_signs_and_resume():
    optimizer: Any = adder_recipe(10, parts={"binary": bop(threshold=0.0, gamma=0.1)})
    rng = np.random.default_rng(0)
    params: Any = {
        name: rng.normal(size=(3, 4)).astype(np.float32) for name in ("binary_kernel", "kernel")
    }
    grads = [jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)] * 3
    grads += [jax.tree.map(np.negative, g) for g in grads]

    @jax.jit
    def step(g, state, params):
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    state, binary, kept = optimizer.init(params), [], []
    for g in grads:
        kept.append(jax.tree.map(np.array, (params, state)))  # as a checkpoint has it
        params, state = step(g, state, params)
        binary.append(np.asarray(params["binary_kernel"]))
        assert {*binary[-1].flat} == {-1, 1}
    assert (binary[0] != binary[-1]).any()
    resumed, resumed_state = kept[3]
    for g in grads[3:]:
        resumed, resumed_state = step(g, resumed_state, resumed)
    chex.assert_trees_all_equal((resumed, resumed_state), (params, state))


def test_does_not_recompile():
    optimizer, w = bop(), jnp.ones(3)
    update = jax.jit(chex.assert_max_traces(optimizer.update, n=1))
    state: Any = optimizer.init(w)
    for _ in range(3):
        _, state = update(w, state, w)


def test_a_nan_stays_one():
    assert np.isnan(first_update(jnp.array([jnp.nan]))).all()


@pytest.mark.parametrize("threshold", [-1.0, float("nan"), float("inf")])
def test_the_threshold_is_checked(threshold):
    words = f"^threshold must be a finite number from 0 on, not {threshold}\\.$"
    with pytest.raises(InputError, match=words):
        bop(threshold)


@pytest.mark.parametrize("gamma", [0.0, -0.1, 1.5, float("nan")])
def test_gamma_is_checked(gamma):
    with pytest.raises(InputError, match=f"^gamma must be .* at most 1, not {gamma}\\.$"):
        bop(gamma=gamma)


def test_the_error_without_parameters_says_what_to_pass():
    optimizer: Any = bop()
    with pytest.raises(ValueError, match=r"needs the parameters: update\(updates, state, params\)"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))
