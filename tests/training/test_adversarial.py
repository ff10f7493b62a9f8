"""Adversarial losses against published values, second derivatives against differences."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab import kernels
from nnlab.arithmetics import NAMED
from nnlab.ops.adder import adder_dense
from nnlab.training.adversarial import (
    HINGE,
    LEAST_SQUARES,
    NON_SATURATING,
    WASSERSTEIN,
    gradient_penalty,
)

RNG = np.random.default_rng(0)
REAL, FAKE = jnp.array([1.5, 0.2, -1.0]), jnp.array([-2.0, 0.3, -0.5])


@pytest.mark.parametrize(
    ("loss", "critic", "generator"),
    [
        (NON_SATURATING, 1.1893914, 1.2184534),
        (HINGE, 1.5333333, 0.7333333),
        (LEAST_SQUARES, 1.5383333, 1.9566667),
        (WASSERSTEIN, -0.9666667, 0.7333333),
    ],
)
def test_losses(loss, critic, generator):
    np.testing.assert_allclose(loss.critic(REAL, FAKE), critic, 1e-6)
    np.testing.assert_allclose(loss.generator(FAKE), generator, 1e-6)


def test_a_critic_that_cannot_tell_loses_two_log_two():
    np.testing.assert_allclose(NON_SATURATING.critic(jnp.zeros(3), jnp.zeros(2)), 2 * np.log(2))


def test_the_penalty_of_a_constant_slope():
    real, fake = jnp.ones((4, 2, 3)), jnp.zeros((4, 2, 3))
    key, weights = jax.random.key(0), jnp.full((2, 3), 0.5)

    def penalty(weights):
        return gradient_penalty(lambda x: (x * weights).sum((1, 2)), key, real, fake)

    norm = 0.5 * 6**0.5
    value, slope = jax.value_and_grad(penalty)(weights)
    np.testing.assert_allclose(value, (norm - 1) ** 2, 1e-6)
    np.testing.assert_allclose(slope, np.full((2, 3), 2 * (norm - 1) * 0.5 / norm), 1e-5)
    value, slope = jax.value_and_grad(penalty)(jnp.zeros((2, 3)))  # where the norm has no slope
    assert value == 1 and not slope.any()


X, W, V = RNG.normal(size=(5, 4)), RNG.normal(size=(4, 3)), RNG.normal(size=3)


def squared_slope(x, w, y):
    """The squared slope of v · tanh(y) by the rule "clip", with outputs y as given."""
    g = V * (1 - np.tanh(y) ** 2)
    return np.square(np.einsum("no,nko->nk", g, np.clip(w - x[:, :, None], -1, 1))).sum()


def by_differences(f, a, size=1e-6):
    found = np.zeros_like(a)
    for place in np.ndindex(a.shape):
        step = np.zeros_like(a)
        step[place] = size
        found[place] = (f(a + step) - f(a - step)) / (2 * size)
    return found


@pytest.mark.parametrize("body", ["default", pytest.param("xla", marks=pytest.mark.slow)])
@pytest.mark.parametrize("rule", ["sign", "full"])
def test_an_adders_slope_is_differentiated_again(rule, body):
    """Through the slope by the derivative of clip, through the outputs by the filter's rule."""

    def ours(w):
        def critic(x):
            return (jnp.tanh(adder_dense(x, w, filter_rule=rule)) * V).sum()

        return jnp.square(jax.grad(critic)(jnp.asarray(X, jnp.float32))).sum()

    def outputs(w):
        return -np.abs(X[:, :, None] - w).sum(1)

    y = outputs(W)
    through_outputs = by_differences(lambda y: squared_slope(X, W, y), y)
    apart = X[:, :, None] - W
    rules = np.sign(apart) if rule == "sign" else apart
    expected = by_differences(lambda w: squared_slope(X, w, y), W)
    expected += np.einsum("no,nko->ko", through_outputs, rules)
    if rule == "sign":  # which is the derivative itself
        true = by_differences(lambda w: squared_slope(X, w, outputs(w)), W)
        np.testing.assert_allclose(expected, true, 1e-5, 1e-7)
    with contextlib.nullcontext() if body == "default" else kernels.use(body):
        found = jax.jit(jax.grad(ours))(jnp.asarray(W, jnp.float32))
    np.testing.assert_allclose(found, expected, 1e-3, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_every_arithmetic_has_a_penalty_to_learn_by(name):
    layer = NAMED[name].conv(3, (2, 2))
    real, fake = jnp.asarray(RNG.normal(size=(2, 3, 4, 4, 2)), jnp.float32)
    variables = layer.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, real)

    @jax.jit
    @jax.grad
    def slope(variables):
        def critic(x):
            y: Any = layer.apply(variables, x, rngs={"dropout": jax.random.key(1)})
            return jnp.sin(y).sum(axis=(1, 2, 3))

        return gradient_penalty(critic, jax.random.key(2), real, fake)

    found = jax.tree.leaves(slope(variables)["params"])
    assert all(jnp.isfinite(leaf).all() for leaf in found)
    assert any(leaf.any() for leaf in found), name
