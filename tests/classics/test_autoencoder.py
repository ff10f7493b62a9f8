"""The auto-encoder of windows."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab import training
from nnlab.classics.autoencoder import reconstruction_error
from nnlab.errors import InputError
from nnlab.models import AutoEncoder

KEY = jax.random.key(0)


def test_the_error_of_a_hand_worked_window():
    windows = np.array([[1, 2], [0, 0]], np.float32), np.array([[4, 6]] * 2, np.float32)
    error = jax.jit(reconstruction_error)(*windows)
    np.testing.assert_allclose(
        error, [12.5**0.5, 26**0.5], rtol=1e-6
    )  # (9 + 16) / 2, (16 + 36) / 2


def test_outputs_by_hand():
    model, x = AutoEncoder(5, 3), np.linspace(-1, 1, 12).reshape(2, 6)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, KEY, x)["params"]
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
    expected = x
    for name in ("first", "encode", "decode", "last"):
        expected = expected @ params[name]["kernel"] + params[name]["bias"]
        expected = expected if name == "last" else np.tanh(expected)
    outputs = jax.jit(model.apply)({"params": params}, x)
    # Sums of at most six float32 products below 10, through slopes of at most 1.
    np.testing.assert_allclose(np.asarray(outputs), expected, rtol=0, atol=4 * 60 * 2**-24)


@pytest.mark.slow
def test_what_it_has_seen_it_rebuilds_and_the_rest_not():
    phases = np.random.default_rng(0).uniform(0, 6, (64, 1))
    windows = jnp.sin(jnp.asarray(phases, jnp.float32) + jnp.arange(12) * 0.7)
    model, optimizer = AutoEncoder(12, 3), optax.adam(1e-2)
    state = training.init(KEY, model, optimizer, windows)

    def loss(outputs, labels):
        return jnp.square(outputs - labels).mean()

    step = jax.jit(training.train_step(model, optimizer, loss, metrics=lambda y, t: {}))
    for _ in range(400):
        state, _ = step(state, (windows, windows))
    strange = windows.at[:, 6:].set(0.0)  # the wave stops

    def errors(x):
        outputs = model.apply({"params": state.params}, x)
        assert isinstance(outputs, jax.Array)
        return reconstruction_error(outputs, x)

    assert errors(strange).mean() > 3 * errors(windows).mean()


@pytest.mark.parametrize(
    ("options", "shape"), [({"code": 0}, (1, 4)), ({"hidden": 0}, (1, 4)), ({}, (1, 4, 4, 1))]
)
def test_bad_arguments(options, shape):
    with pytest.raises(InputError):
        jax.eval_shape(AutoEncoder(**options).init, KEY, jnp.zeros(shape))
