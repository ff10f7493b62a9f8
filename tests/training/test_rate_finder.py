"""Range tests against a parabola, on which gradient descent is a product of factors."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab import training
from nnlab.errors import InputError
from nnlab.training.rate_finder import RangeTest

CURVATURE = 4.0  # SGD diverges at rates above 2 / 4
X = np.full((3, 1), 2.0, np.float32)


class Parabola(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(1, use_bias=False, kernel_init=nn.initializers.ones)(x)


def loss(outputs, labels):
    return jnp.square(outputs - labels).mean() / 2  # (2 w)^2 / 2


FEED = training.in_memory((X, np.zeros((3, 1), np.float32)), 1)  # three steps an epoch


def measured(**options):
    settings = {"steps": 25, "lowest": 1e-3, "highest": 1e3, "loss": loss} | options
    return training.range_test(Parabola(), optax.sgd, FEED, metrics=lambda *_: {}, **settings)


def test_losses_are_those_of_descent_at_rising_rates():
    found = measured()
    rates = 1e-3 * 10 ** (np.arange(25) / 4)
    np.testing.assert_allclose(found.rates, rates[: len(found.rates)], rtol=1e-6)
    weights = np.cumprod([1.0, *(1 - CURVATURE * rates[:-1])])
    expected = CURVATURE * weights**2 / 2
    np.testing.assert_allclose(found.losses, expected[: len(found.losses)], rtol=1e-3)
    assert 2 / CURVATURE < found.rates[-1] < 1e2  # it ends after it has diverged
    assert found.suggestion is not None and 0.005 < found.suggestion < 2 / CURVATURE


def test_a_number_that_is_not_finite_ends_it():
    found = measured(highest=1e30, steps=40)
    assert np.isfinite(found.losses).all() and len(found.losses) < 40


def test_where_nothing_falls_nothing_is_suggested():
    assert (
        RangeTest(np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.array([1.0, 1.5])).suggestion
        is None
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 1}, "steps must be an integer of at least 2, not 1"),
        ({"lowest": 0.0}, "lowest and highest must be positive rates in order, not 0.0 and"),
        ({"lowest": 2e3}, "lowest and highest must be"),
    ],
)
def test_bad_input(options, said):
    with pytest.raises(InputError, match=said):
        measured(**options)


def test_a_first_loss_that_is_not_finite():
    with pytest.raises(InputError, match="the first loss is not finite"):
        measured(loss=lambda outputs, labels: jnp.nan * outputs.mean())


@pytest.mark.slow
def test_the_rate_of_an_adder_network():
    from nnlab.arithmetics import ADDER
    from nnlab.figures.rates import figure_range_test
    from nnlab.models import SmallCNN
    from nnlab.optim import adder_recipe

    labels = jnp.arange(64) % 10
    images = jax.random.normal(jax.random.key(0), (64, 12, 12, 1)) + labels[:, None, None, None]
    found = training.range_test(
        SmallCNN(classes=10, arithmetic=ADDER),
        lambda rates: adder_recipe(1, rates),
        training.in_memory((images, labels), 16),
        steps=60,
    )
    assert found.suggestion is not None and 1e-3 < found.suggestion < 1
    (axes,) = figure_range_test(found).axes
    assert axes.get_legend_handles_labels()[1][-1] == f"suggestion {found.suggestion:.2g}"
