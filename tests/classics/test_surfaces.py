import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.classics.surfaces import bowl, newton_path, path, rosenbrock


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64():
        yield


def test_newton_climbs_first():
    values = newton_path(rosenbrock, jnp.array([-1.2, 1.0]), 6).values
    np.testing.assert_allclose(
        values[:5], [24.2, 4.731884, 1411.845, 0.0559655, 0.3131891], rtol=1e-5
    )
    assert values[5] < 2e-11 and values[6] < 1e-19
    assert newton_path(bowl(50.0), jnp.array([3.0, -2.0]), 1).values[1] < 1e-28


def test_first_steps_do_not_depend_on_the_gradient():
    for start in ([-1.2, 1.0], [0.5, 0.5]):
        moved = jnp.diff(path(optax.adam(0.01), rosenbrock, jnp.array(start), 1).points, axis=0)
        np.testing.assert_allclose(jnp.abs(moved), 0.01, rtol=1e-6)
        moved = jnp.diff(path(optax.rmsprop(0.01), rosenbrock, jnp.array(start), 1).points, axis=0)
        np.testing.assert_allclose(jnp.abs(moved), 0.01 / np.sqrt(0.1), rtol=1e-6)


def test_gradient_descent_on_a_bowl():
    start = jnp.array([1.0, 1.0])
    points = path(optax.sgd(0.1), bowl(15.0), start, 3).points
    np.testing.assert_allclose(points[3], [0.9**3, (1 - 1.5) ** 3], rtol=1e-12)
    assert path(optax.sgd(0.21), bowl(10.0), start, 50).values[-1] > 100  # beyond 2 / c


def test_gradient_descent_in_the_valley():
    values = path(optax.sgd(1e-3), rosenbrock, jnp.array([-1.2, 1.0]), 15_100).values
    assert int(jnp.argmax(values < 1e-6)) == 15_068


def test_line_search_gets_what_it_needs():
    values = path(optax.lbfgs(), rosenbrock, jnp.array([-1.2, 1.0]), 50).values
    assert values[-1] < 1e-12
