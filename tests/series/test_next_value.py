"""The network of next values: its size, its loss, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import norm

from nnlab import training
from nnlab.models import NextValue
from nnlab.series.next_value import negative_log_likelihood, surprise

KEY = jax.random.key(0)


def test_parameters_are_those_of_the_docstring():
    variables = jax.eval_shape(NextValue().init, KEY, jnp.zeros((1, 3, 1)))
    sizes = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert sizes == 4 * 24 * (1 + 24 + 1) + 2 * 25 == 2546


def test_the_loss_is_the_gaussian_one_and_the_surprise_its_distance():
    outputs, value = jnp.array([1.5, -0.7]), jnp.array(2.1)
    expected = -norm.logpdf(2.1, 1.5, np.exp(-0.7)) - 0.5 * np.log(2 * np.pi)
    # float32 terms of about 0.7 cancel to 0.03: three roundings of 6e-8
    np.testing.assert_allclose(negative_log_likelihood(outputs, value), expected, atol=2e-7)
    np.testing.assert_allclose(surprise(outputs, value), 0.6 * np.exp(0.7), rtol=1e-6)


@pytest.mark.slow
def test_it_learns_a_wave_that_its_last_value_does_not_tell():
    model, wave = NextValue(8), jnp.sin(jnp.arange(400) * 0.9)
    x, values = wave[None, :-1, None], wave[None, 1:]
    optimizer = optax.adam(2e-2)

    def loss(outputs, labels):
        return negative_log_likelihood(outputs, labels).mean()

    def error(outputs, labels):
        return {"error": jnp.abs(outputs[..., 0] - labels).mean()}

    state = training.init(KEY, model, optimizer, x)
    step = jax.jit(training.train_step(model, optimizer, loss, metrics=error))
    for _ in range(150):
        state, metrics = step(state, (x, values))
    persistence = jnp.abs(jnp.diff(wave)).mean()
    assert metrics["error"] < persistence / 5
