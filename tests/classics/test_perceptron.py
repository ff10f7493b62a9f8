import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.classics.perceptron import margin, mistake_bound, perceptron
from nnlab.errors import InputError

INPUTS = np.array([[1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]], np.float32)
GATES = {  # gate: signs, updates, epochs in which there were some, weights, bound (by hand)
    "or": ([-1, 1, 1, 1], 9, 5, [-1, 2, 2], 27),
    "and": ([-1, -1, -1, 1], 18, 8, [-4, 3, 2], 51),
    "nand": ([1, 1, 1, -1], 18, 8, [4, -3, -2], 51),
}


@pytest.mark.parametrize("gate", GATES)
def test_gates(gate):
    signs, updates, epochs, weights, bound = GATES[gate]
    learned = perceptron(jnp.asarray(INPUTS), jnp.array(signs), 12)
    assert int(learned.updates.sum()) == updates
    assert int((learned.updates > 0).sum()) == epochs
    np.testing.assert_array_equal(learned.weights[-1], weights)
    assert mistake_bound(INPUTS, np.array(signs)) == pytest.approx(bound, rel=1e-9)


def test_xor_goes_round():
    learned = perceptron(jnp.asarray(INPUTS), jnp.array([-1, 1, 1, -1]), 5)
    np.testing.assert_array_equal(learned.updates, 4)
    np.testing.assert_array_equal(learned.weights, 0)
    assert mistake_bound(INPUTS, np.array([-1, 1, 1, -1])) == float("inf")


def test_margin_is_that_of_a_support_vector_machine():
    from sklearn.svm import SVC

    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2)) + np.repeat([[3, 3], [-3, -3]], 20, axis=0)
    signs = np.repeat([1, -1], 20)
    # Without a bias: of the examples and their mirror images a machine's bias is 0.
    machine = SVC(kernel="linear", C=1e6, tol=1e-9).fit([*x, *-x], [*signs, *-signs])
    reached, direction = margin(x, signs)
    assert reached == pytest.approx(1 / np.linalg.norm(machine.coef_), rel=1e-5)
    assert np.min(signs * (x @ direction)) == pytest.approx(reached)


def test_bad_input():
    with pytest.raises(InputError, match="signs"):
        perceptron(jnp.asarray(INPUTS), jnp.ones(3), 1)
    with pytest.raises(InputError, match="epochs"):
        perceptron(jnp.asarray(INPUTS), jnp.ones(4), 0)
