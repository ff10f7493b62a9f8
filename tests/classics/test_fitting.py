from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.optimize import least_squares

from nnlab.arithmetics import ADDER
from nnlab.classics import fitting
from nnlab.errors import InputError

X = np.linspace(-1, 1, 41)[:, None]
Y = np.sin(np.pi * X)


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64():
        yield


def start(model, seed=0):
    params = model.init(jax.random.key(seed), jnp.asarray(X))["params"]
    return jax.tree.map(lambda p: p.astype(jnp.float64), params)


def residuals(model):
    return lambda params: (model.apply({"params": params}, X) - Y).ravel()


def test_start_of_nguyen_and_widrow():
    model = fitting.FitNet(hidden=16)
    params: Any = model.init(jax.random.key(0), jnp.ones((1, 2)))["params"]
    length = 0.7 * 16 ** (1 / 2)
    kernel = params["hidden"]["kernel"]
    np.testing.assert_allclose(jnp.linalg.norm(kernel, axis=0), length, rtol=1e-5)
    spread = params["bias"] * jnp.sign(kernel[0])
    np.testing.assert_allclose(spread, np.linspace(-length, length, 16), rtol=1e-5)


def test_levenberg_marquardt_of_a_linear_problem_is_one_step_of_least_squares():
    a, b = np.array([[1.0, 2], [3, 4], [5, 7]]), np.array([1.0, 0, 2])
    found, _ = next(fitting.levenberg_marquardt(lambda p: a @ p - b, jnp.zeros(2), damping=1e-12))
    np.testing.assert_allclose(found, np.linalg.lstsq(a, b)[0], rtol=1e-8)


def test_levenberg_marquardt_reaches_the_goal_as_fast_as_known():
    """41 points of a sine, five units, to a sum of squares of 0.002: 6 epochs, median of starts."""
    model = fitting.FitNet(hidden=5)
    e, needed = residuals(model), []
    for seed in range(3):
        steps = zip_first(fitting.levenberg_marquardt(e, start(model, seed)), 12)
        sums = [float(jnp.sum(e(params) ** 2)) for params, _ in steps]
        assert sums == sorted(sums, reverse=True)
        needed.append(1 + next(n for n, value in enumerate(sums) if value < 0.002))
    assert np.median(needed) == 6


def zip_first(steps, count):
    return [pair for _, pair in zip(range(count), steps, strict=False)]


@pytest.mark.slow
def test_it_ends_where_another_implementation_does():
    model = fitting.FitNet(hidden=2)
    e, params = residuals(model), start(model)
    flat, unravel = ravel_pytree(params)
    peer = least_squares(jax.jit(lambda p: e(unravel(p))), flat, method="lm")
    *_, (found, evaluations) = fitting.levenberg_marquardt(e, params)
    assert float(jnp.sum(e(found) ** 2)) == pytest.approx(2 * peer.cost, rel=1e-6)
    assert evaluations < 1000


@pytest.mark.slow
def test_a_layer_of_distances_is_fitted_by_its_rules():
    model = fitting.FitNet(hidden=8, arithmetic=ADDER, activation=jax.nn.relu)
    e, params = residuals(model), start(model)
    steps = zip_first(fitting.levenberg_marquardt(e, params), 30)
    assert float(jnp.sum(e(steps[-1][0]) ** 2)) < 0.3 * float(jnp.sum(e(params) ** 2))


def test_validation_stops_and_the_best_counts():
    errors = iter([5.0, 4, 3, 3.5, 3.6, 3.7])

    def measured(params):
        return {"train": 1.0, "validation": next(errors), "test": 2.0}

    fitted = fitting.fit_until(((n, n) for n in range(1, 100)), 0, measured, fails=3)
    assert (fitted.best_epoch, fitted.params, fitted.evaluations) == (2, 2, 5)


def test_parts_and_scales():
    parts = fitting.divide(jax.random.key(0), 100)
    assert [len(part) for part in parts] == [70, 15, 15]
    assert {*np.concatenate(parts)} == {*range(100)}
    values = np.array([[1.0, -5], [3, 5], [2, 0]])
    scale = fitting.Scale.of(values)
    np.testing.assert_array_equal(scale.down(values), [[-1, -1], [1, 1], [0, 0]])
    np.testing.assert_array_equal(scale.up(scale.down(values)), values)
    with pytest.raises(InputError, match="column 1 has one value only"):
        fitting.Scale.of(np.array([[1.0, 2], [3, 2]]))
    with pytest.raises(InputError, match="without any"):
        fitting.divide(jax.random.key(0), 3)
