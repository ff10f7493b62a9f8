"""Layer by layer, denoising and up-down."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.classics import layerwise, up_down
from nnlab.classics.denoising import Denoising, reconstruction_loss
from nnlab.classics.mlp import MLP
from nnlab.classics.rbm import CD, RBM
from nnlab.errors import InputError


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


LAYER = RBM(draw(0, 6, 4), draw(1, 6), draw(2, 4))
X = jnp.asarray(np.random.default_rng(3).uniform(size=(8, 6)), jnp.float32)


def test_the_loss_of_a_denoising_layer_and_its_gradient():
    damaged = X * (np.arange(6) % 2)

    @jax.jit
    def both(layer, key):
        gradient, _ = Denoising(0.0)(key, layer, X, X)
        return reconstruction_loss(layer, X, damaged), gradient.visible

    losses, gradient = both(LAYER, jax.random.key(0))
    w, b, c, x = (np.asarray(part, np.float64) for part in (*LAYER, X))
    z = sigmoid(sigmoid(damaged @ w + c) @ w.T + b)
    expected = -np.sum(x * np.log(z) + (1 - x) * np.log(1 - z), axis=1)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    z = sigmoid(sigmoid(x @ w + c) @ w.T + b)
    np.testing.assert_allclose(gradient, np.mean(x - z, axis=0), atol=1e-6)


def ones(key, params, batch, chains):
    return jax.tree.map(jnp.ones_like, params), chains


def test_an_epoch_follows_momentum_and_decay():
    """One batch of all data, so that the order does not matter."""
    velocity = jax.tree.map(jnp.zeros_like, LAYER)
    learning = layerwise.Learning(LAYER, velocity, jnp.zeros((8, 4)))
    key, options = jax.random.key(1), {"learning_rate": 0.5, "momentum": 0.5, "decay": 0.1}
    learning = layerwise.epoch(key, learning, X, ones, **options)
    step = 0.5 * (1 - 0.1 * LAYER.weights)
    np.testing.assert_allclose(learning.params.weights, LAYER.weights + step, rtol=1e-5)
    np.testing.assert_allclose(learning.params.hidden, LAYER.hidden + 0.5, 1e-5)  # no decay
    second = layerwise.epoch(key, learning, X, ones, **options)
    step = 0.5 * step + 0.5 * (1 - 0.1 * np.asarray(learning.params.weights))
    expected = np.asarray(learning.params.weights) + step
    np.testing.assert_allclose(second.params.weights, expected, rtol=1e-5)


def test_layers_unroll_into_a_network():
    layers = [LAYER, RBM(draw(4, 4, 4), draw(5, 4), draw(6, 4))]
    model = MLP(classes=3, depth=2, width=4, norm=False, activation=jax.nn.sigmoid)
    shapes = jax.eval_shape(model.init, jax.random.key(1), X)["params"]
    before = jax.tree.map(lambda leaf: draw(7, *leaf.shape), shapes)
    params = layerwise.unroll(layers, before)
    h = sigmoid(X @ LAYER.weights + LAYER.hidden)
    h = sigmoid(h @ layers[1].weights + layers[1].hidden)
    expected = h @ before["classifier"]["kernel"] + before["classifier"]["bias"]
    found = jax.jit(model.apply)({"params": params}, X)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="no weights dense3"):
        layerwise.unroll([*layers, layers[0]], params)
    with pytest.raises(InputError, match="dense1"):
        layerwise.unroll(layers[1:], params)


def network(scale):
    """6 pixels, layers of 5 and 4, a machine of 4 + 2 classes and 3 units."""
    down = (up_down.Dense(draw(6, 5, 6), draw(7, 6)), up_down.Dense(draw(8, 4, 5), draw(9, 5)))
    up = (up_down.Dense(draw(10, 6, 5), draw(11, 5)), up_down.Dense(draw(12, 5, 4), draw(13, 4)))
    top = RBM(draw(14, 6, 3), draw(15, 6), draw(16, 3))
    return jax.tree.map(lambda part: scale * part, up_down.DeepBelief(up, down, top))


def test_up_down_is_the_program_of_the_paper():
    """With weights so large that every unit is certain, nothing is left to chance."""
    dbn = network(1000.0)
    up, down, top = jax.tree.map(lambda part: np.asarray(part, np.float64), dbn)
    data = np.asarray(X[:1] > 0.5, np.float64)
    targets = np.array([[0, 1]], np.float32)
    with np.errstate(over="ignore"):
        wakehid = sigmoid(data @ up[0].weights + up[0].biases)
        wakepen = sigmoid(wakehid @ up[1].weights + up[1].biases)
        waketop = sigmoid(np.hstack([wakepen, targets]) @ top.weights + top.hidden)
        negtop = waketop
        for _ in range(3):
            fields = negtop @ top.weights.T + top.visible
            neglab = np.exp(fields[:, 4:] - fields[:, 4:].max())
            negpen, neglab = sigmoid(fields[:, :4]), neglab / neglab.sum()
            negtop = sigmoid(np.hstack([negpen, neglab]) @ top.weights + top.hidden)
        sleephid = sigmoid(negpen @ down[1].weights + down[1].biases)
        sleepvis = sigmoid(sleephid @ down[0].weights + down[0].biases)
        psleeppen = sigmoid(sleephid @ up[1].weights + up[1].biases)
        psleephid = sigmoid(sleepvis @ up[0].weights + up[0].biases)
        pvis = sigmoid(wakehid @ down[0].weights + down[0].biases)
        phid = sigmoid(wakepen @ down[1].weights + down[1].biases)
    dense: Any = up_down.Dense
    machine: Any = RBM
    expected = up_down.DeepBelief(
        (
            dense(sleepvis.T @ (sleephid - psleephid), (sleephid - psleephid)[0]),
            dense(sleephid.T @ (negpen - psleeppen), (negpen - psleeppen)[0]),
        ),
        (
            dense(wakehid.T @ (data - pvis), (data - pvis)[0]),
            dense(wakepen.T @ (wakehid - phid), (wakehid - phid)[0]),
        ),
        machine(
            np.hstack([wakepen, targets]).T @ waketop - np.hstack([negpen, neglab]).T @ negtop,
            (np.hstack([wakepen, targets]) - np.hstack([negpen, neglab]))[0],
            (waketop - negtop)[0],
        ),
    )
    found = jax.jit(up_down.direction)(jax.random.key(0), dbn, data.astype(np.float32), targets, 3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)
    changed = [np.abs(part).max() > 0.5 for part in jax.tree.leaves(expected)]
    assert sum(changed) >= 6  # the case tests something


def test_classes_are_told_by_the_free_energy_of_each_label():
    dbn = network(0.5)
    h = X
    for layer in dbn.up:
        h = sigmoid(h @ np.asarray(layer.weights) + layer.biases)
    expected = []
    for label in np.eye(2):
        v = np.hstack([h, np.tile(label, (8, 1))])
        sums = np.logaddexp(0, v @ np.asarray(dbn.top.weights) + dbn.top.hidden).sum(1)
        expected.append(v @ np.asarray(dbn.top.visible) + sums)
    expected = np.transpose(expected) - np.asarray(h @ dbn.top.visible[:4])[:, None]
    np.testing.assert_allclose(up_down.log_odds(dbn, X), expected, rtol=1e-5)


@pytest.mark.slow
def test_up_down_learns_two_pictures_and_their_labels():
    pictures = jnp.array([[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]])
    labels = jnp.tile(jnp.array([0, 1]), 60)
    data, key = pictures[labels], jax.random.key(0)
    options: dict[str, Any] = {"epochs": 6, "batch_size": 20}
    layers = layerwise.pretrain(key, data, (5,), CD(1), **options)
    features = jax.nn.sigmoid(data @ layers[0].weights + layers[0].hidden)
    features = jnp.concatenate([features, jax.nn.one_hot(labels, 2)], axis=1)
    top = layerwise.train_layer(key, features, 4, CD(1, 2), **options)
    dbn = up_down.untie(layers, top)
    velocity = jax.tree.map(jnp.zeros_like, dbn)
    for number in range(40):
        dbn, velocity = up_down.epoch(
            *(jax.random.fold_in(key, number), dbn, velocity, data, labels),
            steps=2,
            learning_rate=0.2,
            momentum=0.5,
            batch_size=20,
        )
    assert (jnp.argmax(up_down.log_odds(dbn, data), 1) == labels).all()
    imagined = up_down.imagine(key, dbn, labels, steps=50)
    assert jnp.mean(jnp.abs(imagined - data)) < 0.15


KEY, LABELS = jax.random.key(0), jnp.arange(8) % 2
BEGUN = layerwise.Learning(LAYER, LAYER, jnp.zeros((4, 4)))
ONE: dict[str, Any] = {"steps": 1, "learning_rate": 0.1, "batch_size": 4}


def train(**options):
    return layerwise.train_layer(KEY, X, 4, CD(1), batch_size=4, **options)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Denoising(1.5), "corruption is 1.5"),
        (lambda: reconstruction_loss(LAYER, X[:, :5], X), r"clean has shape \[8, 5\]"),
        (lambda: layerwise.pretrain(jax.random.key(0), X, (), CD(1)), r"widths are \(\)"),
        (lambda: layerwise.pretrain(jax.random.key(0), X, (3, 0), CD(1)), "widths must be"),
        (lambda: layerwise.begin(jax.random.key(0), 255 * X, 4, 8), "numbers from 0 to 1"),
        (lambda: layerwise.begin(jax.random.key(0), X * jnp.nan, 4, 8), "numbers from 0 to 1"),
        (lambda: train(learning_rate=-0.1), "learning_rate must be"),
        (lambda: layerwise.epoch(KEY, BEGUN, X[:3], CD(1)), "3 examples were given"),
        (lambda: up_down.untie([LAYER, LAYER], LAYER), "6 visible units was given above one of 4"),
        (
            lambda: up_down.epoch(KEY, network(1.0), network(0.0), X, LABELS + 1, **ONE),
            "from 1 to 2, expected 0 to 1",
        ),
        (
            lambda: up_down.epoch(KEY, network(1.0), network(0.0), X, LABELS, **ONE | {"steps": 0}),
            "steps must be",
        ),
        (lambda: up_down.imagine(KEY, network(1.0), LABELS - 1, 1), "from -1 to 0"),
        (lambda: Denoising("half"), "corruption is 'half'"),  # pyright: ignore
        (lambda: layerwise.begin(jax.random.key(0), X, 4, 9), "at least 9 examples"),
        (lambda: up_down.untie([LAYER._replace(hidden=draw(0, 5))], LAYER), "6 visible units"),
        (lambda: up_down.log_odds(network(1.0), X[:, :5]), r"images have shape \[8, 5\]"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError, match=words):
        call()
