import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.classics import by_hand
from nnlab.classics.by_hand import ADDER_RULES, FLOAT_RULES, WORKED, WORKED_CELL
from nnlab.ops.adder import adder_dense

PRODUCTS = {"float": (FLOAT_RULES, jnp.matmul), "adder": (ADDER_RULES, adder_dense)}


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64():
        yield


def test_worked_example():
    step = by_hand.two_layer_step(WORKED)
    expected = {
        "hidden_input": [0.3775, 0.3925],
        "hidden": [0.5932699921071872, 0.596884378259767],
        "output_input": [1.10590596705977, 1.2249214040964653],
        "output": [0.7513650695523157, 0.7729284653214625],
        "errors": [0.274811083176155, 0.02356002558384775],
        "error": 0.2983711087600027,
        "output_delta": [0.13849856162855695, -0.03809823651655624],
        "second_gradient": [
            [0.08216704056423077, -0.02260254047747507],
            [0.08266762784753325, -0.02274024221597822],
        ],
        "hidden_delta": [0.00877135468948693, 0.0099542547052172],
        "first_gradient": [
            [0.00043856773447435, 0.00049771273526086],
            [0.00087713546894869, 0.00099542547052172],
        ],
        "new_second": [
            [0.35891647971788465, 0.5113012702387375],
            [0.4086661860762334, 0.5613701211079891],
        ],
        "new_first": [
            [0.1497807161327628, 0.24975114363236958],
            [0.19956143226552567, 0.29950228726473915],
        ],
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(step, name), value, rtol=1e-13, err_msg=name)


def test_order_of_updates():
    """The widely copied 0.291027924 comes from moving the second layer first."""

    def error(steps, **options):
        return by_hand.two_layer_step(by_hand.descend(WORKED, steps, **options)).error

    assert error(1) == pytest.approx(0.29102777369359933, rel=1e-14)
    assert error(2) == pytest.approx(0.28354713312241997, rel=1e-14)
    assert error(1, weights_first=True) == pytest.approx(0.29102792390544197, rel=1e-14)


@pytest.mark.parametrize("name", PRODUCTS)
def test_gradients_are_those_of_jax(name):
    rules, product = PRODUCTS[name]

    def error(weights, x, target, biases):
        first, second = weights
        h = jax.nn.sigmoid(product(x[None], first) + biases[0])
        return jnp.sum((target - jax.nn.sigmoid(product(h, second) + biases[1])[0]) ** 2) / 2

    step = by_hand.two_layer_step(WORKED, rules=rules)
    reached, gradients = jax.value_and_grad(error)(
        (WORKED.first, WORKED.second), WORKED.x, WORKED.target, WORKED.biases
    )
    assert step.error == pytest.approx(float(reached), rel=1e-13)
    np.testing.assert_allclose(step.first_gradient, gradients[0], rtol=1e-12)
    np.testing.assert_allclose(step.second_gradient, gradients[1], rtol=1e-12)


@pytest.mark.parametrize("name", PRODUCTS)
def test_gradients_through_time_are_those_of_jax(name):
    rules, product = PRODUCTS[name]
    cell = WORKED_CELL

    def error(weights):
        inputs, recurrent, outputs = weights
        h, total = jnp.asarray(cell.start)[None], 0.0
        for x, target in zip(cell.x, cell.targets, strict=True):
            h = jnp.tanh(product(x[None], inputs) + product(h, recurrent) + cell.biases[0])
            total += jnp.sum((target - product(h, outputs)[0] - cell.biases[1]) ** 2) / 2
        return total

    step = by_hand.cell_step(cell, rules=rules)
    weights = cell.inputs, cell.recurrent, cell.outputs
    reached, gradients = jax.value_and_grad(error)(weights)
    assert step.error == pytest.approx(float(reached), rel=1e-13)
    for mine, theirs in zip(step.gradients, gradients, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)
