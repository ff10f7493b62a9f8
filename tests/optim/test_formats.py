"""Optimisers in number formats: what is rounded, when, and that they still descend."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.ops import posit as posit_op
from nnlab.ops.formats import posit, scaled
from nnlab.optim import adder_recipe, rounded

RNG = np.random.default_rng(0)
posit_round = jax.jit(posit_op.posit_round, static_argnums=(1, 2))


def tree(size=1.0) -> Any:
    def leaf(*shape):
        return np.float32(RNG.normal(size=shape) * size)

    return {
        "a": {"kernel": leaf(3, 4)},
        "b": {"adder_kernel": leaf(3, 4), "bias": leaf(3, 4)},
    }  # one shape compiles once


def posit16(x):
    return np.asarray(posit_round(x, 16, 1))


def test_each_rounding_against_the_optimiser_by_hand():
    # SGD with momentum: m = 0.9 m + g; w = w - 0.1 m
    form = posit(16, 1)
    optimizer = rounded(optax.sgd(0.1, 0.9), gradients=posit(8, 2), moments=form, weights=form)
    params: Any = jax.tree.map(posit16, tree())
    state = optimizer.init(params)
    w, m = params, jax.tree.map(np.zeros_like, params)
    for _ in range(3):
        g = tree(0.01)
        updates, state = optimizer.update(g, state, params)
        params = optax.apply_updates(params, updates)
        full = jax.tree.map(lambda m, g: 0.9 * m + np.asarray(posit_round(g, 8, 2)), m, g)
        w = jax.tree.map(lambda w, m: posit16(w + -0.1 * m), w, full)
        m = jax.tree.map(posit16, full)
        chex.assert_trees_all_equal(params, w)
        chex.assert_trees_all_equal(optax.tree.get(state, "trace"), m)


def test_the_state_is_the_optimisers_own_and_counters_stay():
    params = tree()
    inner = adder_recipe(10_000)
    optimizer = rounded(inner, gradients=scaled(posit(8, 2)), moments=posit(8, 0))
    state = optimizer.init(params)
    chex.assert_trees_all_equal(state, inner.init(params))
    moved = jax.tree.map(lambda x: np.int32(x + 1000) if x.dtype == jnp.int32 else x, state)
    _, after = jax.jit(optimizer.update)(tree(), moved, params)
    chex.assert_trees_all_equal_structs(after, inner.init(params))
    counts = [int(x) for x in jax.tree.leaves(after) if x.dtype == jnp.int32]
    assert counts and set(counts) == {1001}  # posit(8, 0) holds no number beyond 64
    momenta = [x for x in jax.tree.leaves(after) if x.ndim]
    assert len(momenta) == 3
    for x in momenta:
        np.testing.assert_array_equal(x, posit_round(x, 8, 0))


def test_exponents_and_signs_of_shifts_have_moments_too():
    params = jax.tree.map(np.ones_like, tree())
    params |= {"c": {"shift_sign_kernel": np.ones(3, np.float32)}}
    optimizer = rounded(adder_recipe(9), moments=posit(8, 0))
    state = optimizer.init(params)
    g = jax.tree.map(lambda p: np.float32(0.3) * p, params)
    _, after = jax.jit(optimizer.update)(g, state, params)
    chex.assert_trees_all_equal_structs(after, state)
    moments = [x for x in jax.tree.leaves(after) if x.shape == (3,)]
    assert len(moments) == 2 and all(np.any(x) for x in moments)
    for x in moments:
        np.testing.assert_array_equal(x, posit_round(x, 8, 0))


def test_without_formats_it_is_the_optimiser():
    params, g = tree(), tree()
    inner = optax.adam(0.1)
    optimizer = rounded(inner)
    expected = inner.update(g, inner.init(params), params)
    chex.assert_trees_all_equal(optimizer.update(g, optimizer.init(params), params), expected)


def test_weights_need_the_parameters():
    optimizer = rounded(optax.sgd(0.1), weights=posit(8, 1))
    with pytest.raises(ValueError, match=r"^rounded needs the parameters"):
        optimizer.update(tree(), optimizer.init(tree()))


def test_reaches_the_minimum_of_a_parabola_to_a_step_of_the_format():
    target = np.array([3.0, -0.4, 0.05, 1.7], np.float32)
    form = posit(16, 1)
    optimizer = rounded(optax.sgd(0.3, 0.5), gradients=form, moments=form, weights=form)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(w, state):
        updates, state = optimizer.update(w - target, state, w)
        return optax.apply_updates(w, updates), state

    w = np.zeros(4, np.float32)
    state = optimizer.init(w)
    for _ in range(100):
        w, state = step(w, state)
    # An update of less than half a step leaves a weight where it is: 0.3 |w - target| is less
    # than half of the 2^-11 of its size that posit(16, 1) has at least in [1/16, 16] and 2^-10
    # below, so that |w - target| is below 2^-10 / 2 / 0.3 of it.
    np.testing.assert_allclose(w, target, rtol=2**-10 / 2 / 0.3)
    np.testing.assert_array_equal(w, posit16(w))
