"""Batch normalisation with the constants that adder layers need."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.layers.normalization import batch_norm


def test_training_mode_normalises_by_the_batch_and_moves_statistics_by_a_tenth():
    x = jnp.array([[-70.0, 1.0], [-74.0, 3.0]])  # means -72 and 2, variances 4 and 1
    layer: Any = batch_norm(train=True)
    variables = layer.init(jax.random.key(0), x)
    y, updates = layer.apply(variables, x, mutable=["batch_stats"])
    expected = np.array([[2, -1], [-2, 1]]) / np.sqrt(np.array([4, 1]) + 1e-5)
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    stats = updates["batch_stats"]
    np.testing.assert_allclose(stats["mean"], [-7.2, 0.2], rtol=1e-6)  # 0.9 · 0 + 0.1 · mean
    np.testing.assert_allclose(stats["var"], [1.3, 1.0], rtol=1e-6)  # 0.9 · 1 + 0.1 · variance


def test_the_variance_of_numbers_far_from_zero():
    x = np.float32(np.random.default_rng(0).normal(-3700, 40, (4096, 1)))  # 4,608 adder terms
    layer: Any = batch_norm(train=True)
    variables = layer.init(jax.random.key(0), x)
    _, updates = layer.apply(variables, jnp.asarray(x), mutable=["batch_stats"])
    expected = 0.9 + 0.1 * np.float64(x).var()
    # Two passes round distances from the mean, near 40, not squares near 3,700^2.
    np.testing.assert_allclose(updates["batch_stats"]["var"], [expected], rtol=2e-6)


def test_statistics_run_over_all_axes_but_the_last():
    shapes = jax.eval_shape(batch_norm(False).init, jax.random.key(0), jnp.ones((2, 5, 4, 3)))
    assert {leaf.shape for leaf in jax.tree.leaves(shapes)} == {(3,)}
    assert shapes["params"].keys() == {"scale", "bias"}


def test_evaluation_mode_uses_the_running_statistics_and_keeps_them():
    x = jnp.array([[5.0], [9.0]])
    stats = {"mean": jnp.array([1.0]), "var": jnp.array([16 - 1e-5])}
    params = {"scale": jnp.array([3.0]), "bias": jnp.array([-1.0])}
    variables = {"params": params, "batch_stats": stats}
    y, updates = batch_norm(train=False).apply(variables, x, mutable=["batch_stats"])
    # 3 (5 - 1) / 4 - 1 and 3 (9 - 1) / 4 - 1
    assert y[:, 0].tolist() == pytest.approx([2, 5], rel=1e-6)
    assert updates["batch_stats"] == stats


def test_epsilon():
    # Deviations of sqrt(1e-5) have the variance of epsilon, and are scaled to 1 / sqrt(2).
    x = jnp.array([[1.0], [-1.0]]) * 1e-5**0.5
    y, _ = batch_norm(train=True).init_with_output(jax.random.key(0), x)
    assert y[:, 0].tolist() == pytest.approx([0.5**0.5, -(0.5**0.5)], rel=1e-6)


@pytest.mark.parametrize("train", [False, True])
def test_narrow_inputs_and_outputs_leave_all_else_in_float32(train):
    x = jnp.array([[-70.0, 1.0], [-74.0, 3.0]], jnp.bfloat16)
    layer: Any = batch_norm(train, dtype=jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x)
    y, updates = layer.apply(variables, x, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, updates))} == {jnp.dtype("float32")}
    assert batch_norm(train).apply(variables, x, mutable=["batch_stats"])[0].dtype == jnp.float32


def test_along_an_axis_the_batch_is_that_of_all_devices():
    x = jnp.array([[[1.0], [3.0]], [[5.0], [7.0]]])  # two devices, means 2 and 6, together 4
    layer: Any = batch_norm(train=True, axis_name="devices")
    variables = layer.init(jax.random.key(0), x[0])

    def run(x):
        return layer.apply(variables, x, mutable=["batch_stats"])

    y, updates = jax.vmap(run, axis_name="devices")(x)
    expected = np.array([[-3, -1], [1, 3]]) / np.sqrt(5 + 1e-5)  # variance (9 + 1 + 1 + 9) / 4
    np.testing.assert_allclose(y[..., 0], expected, rtol=8 * 2**-24)
    assert updates["batch_stats"]["mean"].tolist() == [[pytest.approx(0.4)]] * 2  # 0.1 · 4
