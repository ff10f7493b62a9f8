import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.classics import hopfield
from nnlab.errors import InputError
from nnlab.ops.adder import adder_dense


def signs(seed, *shape):
    return jnp.sign(jax.random.normal(jax.random.key(seed), shape))


def test_weights_and_energy_of_two_patterns_by_hand():
    patterns = jnp.array([[1.0, 1, -1], [1, -1, -1]])
    weights = hopfield.remember(patterns)
    np.testing.assert_allclose(weights, np.array([[0, 0, -2], [0, 0, 0], [-2, 0, 0]]) / 3)
    np.testing.assert_allclose(hopfield.energy(weights, patterns), [-2 / 3, -2 / 3], rtol=1e-6)


def test_each_sweep_lowers_the_energy_until_it_rests():
    patterns = signs(0, 6, 100)
    weights = hopfield.remember(patterns)
    state, energies = signs(1, 100), []
    sweep = jax.jit(functools.partial(hopfield.recall, sweeps=1))
    for number in range(20):
        energies.append(float(hopfield.energy(weights, state)))
        state, _ = sweep(jax.random.key(number), weights, state)
    assert all(b <= a + 1e-4 for a, b in itertools.pairwise(energies))
    rested, sweeps = hopfield.recall(jax.random.key(9), weights, state)
    assert int(sweeps) == 1  # nothing changed
    np.testing.assert_array_equal(rested, jnp.sign(weights @ rested))


def test_recall_of_a_damaged_pattern_of_its_negative_and_of_a_mixture():
    patterns = signs(2, 5, 500)
    weights = hopfield.remember(patterns)
    cue = patterns[0].at[:100].multiply(-1)
    found, _ = hopfield.recall(jax.random.key(0), weights, cue)
    np.testing.assert_array_equal(found, patterns[0])
    found, _ = hopfield.recall(jax.random.key(0), weights, -cue)
    np.testing.assert_array_equal(found, -patterns[0])
    mixture = jnp.sign(patterns[:3].sum(0))
    found, _ = hopfield.recall(jax.random.key(0), weights, mixture)
    assert hopfield.overlap(found, mixture) > 0.97  # at rest, and no pattern
    assert jnp.max(jnp.abs(hopfield.overlap(found, patterns))) < 0.7


def test_projection_keeps_patterns_that_resemble_each_other():
    patterns = signs(4, 8, 100).at[:, :70].set(1)
    for weights, kept in ((hopfield.project(patterns), 8), (hopfield.remember(patterns), 0)):
        after = jax.vmap(lambda p, w=weights: hopfield.recall_at_once(w, p, 1)[0])(patterns)
        assert int(jnp.sum(jnp.all(after == patterns, axis=1))) == kept


def test_all_units_at_once_may_go_in_a_circle():
    weights = jnp.array([[0.0, 1], [1, 0]])
    states = hopfield.recall_at_once(weights, jnp.array([1.0, -1]), 4)
    np.testing.assert_array_equal(states, [[-1, 1], [1, -1], [-1, 1], [1, -1]])


def test_modern_network():
    patterns, beta = signs(3, 200, 64), 0.5  # far beyond what a classic one can hold
    cues = patterns[:20].at[:, :12].multiply(-1)
    found = hopfield.attend(patterns, cues, beta)
    softmax = jax.nn.softmax(beta * np.asarray(cues) @ np.asarray(patterns).T)
    np.testing.assert_allclose(found, softmax @ patterns, atol=1e-5)
    np.testing.assert_array_equal(jnp.sign(found), patterns[:20])
    before = hopfield.modern_energy(patterns, cues, beta)
    assert (hopfield.modern_energy(patterns, found, beta) < before).all() and (before > 0).all()
    distances = -adder_dense(cues, patterns.T)
    np.testing.assert_allclose(distances, 64 - cues @ patterns.T, atol=1e-4)


def test_bad_input():
    with pytest.raises(InputError, match=r"patterns are \[4\]"):
        hopfield.remember(jnp.ones(4))
    with pytest.raises(InputError, match="weights"):
        hopfield.energy(jnp.ones((3, 3)), jnp.ones(4))
