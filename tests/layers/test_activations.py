"""Layers around activations: their parameters, and that they come from the op and nothing else."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.arithmetics import ADDER, ADDER_SR, FLOAT
from nnlab.errors import InputError
from nnlab.layers import Maxout, PowerActivation, StochasticPool, Swish
from nnlab.models import SmallCNN
from nnlab.ops.pooling import expected_pool

KEY = jax.random.key(0)
X: Any = np.asarray(np.random.default_rng(0).normal(size=(4, 6)), np.float32)


def applied(layer) -> Any:
    return layer.apply


def test_swish_starts_as_silu_and_learns_beta():
    apply = applied(Swish())

    @jax.jit
    def started(key):
        variables = Swish().init(key, X)
        gradient = jax.grad(lambda v: apply(v, X).sum())(variables)
        return variables, apply(variables, X), gradient["params"]["beta"]

    variables, y, gradient = started(KEY)
    assert jax.tree.map(jnp.shape, variables) == {"params": {"beta": ()}}
    s = 1 / (1 + np.exp(-X))
    np.testing.assert_allclose(y, X * s, rtol=1e-6)
    np.testing.assert_allclose(gradient, (X * X * s * (1 - s)).sum(), rtol=1e-5)
    narrow = jax.eval_shape(apply, variables, X.astype(jnp.bfloat16))
    assert narrow.dtype == jnp.bfloat16


def test_swish_as_the_activation_of_an_arithmetic_has_a_beta_a_place():
    arithmetic = dataclasses.replace(FLOAT, activation=lambda x: Swish()(x))
    images = jnp.ones((1, 8, 8, 1))
    params = jax.eval_shape(SmallCNN(arithmetic=arithmetic).init, KEY, images)["params"]
    assert [name for name in params if "Swish" in name] == ["Swish_0", "Swish_1", "Swish_2"]


def test_maxout_is_the_largest_of_its_pieces_in_any_arithmetic():
    for dense, name in ((FLOAT.dense, "kernel"), (ADDER.dense, "adder_kernel")):
        layer = Maxout(5, 3, dense=dense)
        shapes: Any = jax.eval_shape(layer.init, KEY, X)["params"]["units"]
        assert {n: p.shape for n, p in shapes.items()} == {name: (6, 15), "bias": (15,)}
        rng = np.random.default_rng(1)
        params = {n: np.asarray(rng.normal(size=p.shape), np.float32) for n, p in shapes.items()}
        units = jax.jit(dense(15, use_bias=True).apply)({"params": params}, X)
        y = jax.jit(layer.apply)({"params": {"units": params}}, X)
        np.testing.assert_array_equal(y, np.asarray(units).reshape(4, 5, 3).max(-1))
    with pytest.raises(InputError, match=r"^pieces must be at least 1, not 0"):
        Maxout(5, 0).init(KEY, X)


def test_stochastic_pooling_draws_in_training_alone():
    x = np.asarray(np.random.default_rng(0).uniform(size=(2, 4, 4, 3)), np.float32)
    pool = StochasticPool((2, 4))
    assert jax.eval_shape(pool.init, KEY, x) == {}
    mean = jax.jit(expected_pool, static_argnums=1)(x, (2, 4))
    np.testing.assert_array_equal(jax.jit(pool.apply)({}, x), mean)
    draw = jax.jit(lambda key: applied(pool)({}, x, train=True, rngs={"dropout": key}))
    draws = [np.asarray(draw(jax.random.key(s))) for s in (0, 0, 1)]
    assert (draws[0] == draws[1]).all() and (draws[0] != draws[2]).any()
    assert set(np.ravel(draws).tolist()) <= set(np.ravel(x).tolist())


def test_power_starts_as_nothing_and_has_one_exponent():
    layer: Any = PowerActivation()
    y = jnp.array([-2.0, 0.0, 3.0])
    variables = layer.init(jax.random.key(0), y)
    assert jax.tree.map(jnp.shape, variables) == {"params": {"alpha": ()}}
    np.testing.assert_array_equal(layer.apply(variables, y), y)
    squared = layer.apply({"params": {"alpha": jnp.array(2.0)}}, y.astype(jnp.bfloat16))
    assert squared.dtype == jnp.bfloat16 and squared.tolist() == [-4, 0, 9]


def test_a_network_of_powers_has_an_exponent_for_each_activation():
    model = SmallCNN(arithmetic=ADDER_SR)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 8, 8, 1)))["params"]
    assert sum("alpha" in layer for layer in params.values()) == 3
