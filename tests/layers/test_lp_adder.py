"""Lp adder layers: their parameters, and the p that their own count of steps gives them."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.arithmetics import FLOAT, lp_adder
from nnlab.costs import count
from nnlab.layers import LpAdderConv, LpAdderDense
from nnlab.models import SmallCNN
from nnlab.ops.lp_adder import lp_adder_conv
from nnlab.optim import adder_recipe
from nnlab.training import init, train_step


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


IMAGES, VECTORS = normal(2, 4, 3, 3), normal(2, 4, 5)
SCHEDULE = optax.linear_schedule(2.0, 1.0, 2)


@pytest.mark.parametrize(
    ("layer", "x", "shape"),
    [
        (LpAdderConv(4, (3, 2), p_schedule=SCHEDULE), IMAGES, (3, 2, 3, 4)),
        (LpAdderDense(4, p_schedule=SCHEDULE), VECTORS, (5, 4)),
    ],
)
@pytest.mark.parametrize("use_bias", [False, True])
def test_variables(layer, x, shape, use_bias):
    layer = layer.clone(use_bias=use_bias, dtype=jnp.bfloat16)
    y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    bias = {"bias": (4,)} if use_bias else {}
    expected = {"params": {"adder_kernel": shape} | bias, "batch_stats": {"step": ()}}
    assert jax.tree.map(jnp.shape, variables) == expected
    assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float32"}
    assert y.dtype == jnp.bfloat16


def test_p_follows_the_steps_of_training_and_stays_in_evaluation():
    layer: Any = LpAdderConv(4, (1, 1), p_schedule=SCHEDULE)
    variables = layer.init(jax.random.key(0), IMAGES)
    assert variables["batch_stats"]["step"] == 0

    @jax.jit
    def train(variables):
        y, updates = layer.apply(variables, IMAGES, mutable=["batch_stats"])
        return y, variables | updates

    evaluate, kernel = jax.jit(layer.apply), variables["params"]["adder_kernel"]
    for p in (2.0, 1.5, 1.0, 1.0):
        expected = jax.jit(lp_adder_conv)(IMAGES, kernel, p=jnp.array(p))
        for _ in range(2):
            np.testing.assert_array_equal(evaluate(variables, IMAGES), expected)
        y, variables = train(variables)
        np.testing.assert_array_equal(y, expected)
    assert variables["batch_stats"]["step"] == 4


def test_dense_is_the_convolution_of_one_pixel():
    layer: Any = LpAdderDense(4, use_bias=True, p_schedule=lambda step: 1.5)
    variables = layer.init(jax.random.key(0), VECTORS)
    kernel = np.float64(variables["params"]["adder_kernel"])
    expected = -(np.abs(np.asarray(VECTORS, np.float64)[..., None] - kernel) ** 1.5).sum(-2)
    np.testing.assert_allclose(layer.apply(variables, VECTORS), expected, rtol=1e-5)


def test_a_training_counts_once_a_step_whatever_the_parts_of_a_batch():
    arithmetic = lp_adder(SCHEDULE)
    model = SmallCNN(arithmetic=arithmetic, classifier=FLOAT, widths=(2, 2, 2))
    optimizer = adder_recipe(8)
    images, labels = normal(4, 4, 4, 1), jnp.arange(4)
    state = jax.eval_shape(lambda key: init(key, model, optimizer, images), jax.random.key(0))
    for accumulate in (1, 2):
        step = train_step(model, optimizer, accumulate=accumulate)
        after, _ = jax.eval_shape(step, state, (images, labels))
        chex.assert_trees_all_equal_shapes_and_dtypes(after, state)

    # The mean over two parts of their counts, which is what the step keeps.
    layer: Any = LpAdderConv(2, (1, 1), p_schedule=SCHEDULE)
    variables = layer.init(jax.random.key(0), images)
    _, updates = layer.apply(variables, images, mutable=["batch_stats"])
    assert updates["batch_stats"]["step"] == 1


def test_with_p_a_number_no_powers_are_counted():
    terms = 2 * 4 * 3 * 4 * 3
    layers = [LpAdderConv(4, (1, 1), p_schedule=p) for p in (SCHEDULE, optax.constant_schedule(1))]
    variables = jax.eval_shape(layers[0].init, jax.random.key(0), IMAGES)
    powers, distances = (count(layer.apply, variables, IMAGES) for layer in layers)
    assert powers.other == {"float32": terms + 1}  # the one is the schedule's quotient
    assert not powers.unknown
    assert not distances.other
    assert distances.additions == {"float32": 2 * terms}
