import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.classics import likelihood, rbm
from nnlab.classics.layerwise import train_layer
from nnlab.classics.rbm import CD, PCD, RBM
from nnlab.errors import InputError

SMALL = RBM(
    jnp.array([[1, -1], [0, 2], [0.5, 0]]), jnp.array([0, 0.1, -0.1]), jnp.array([0.2, -0.3])
)
DATA = jnp.array([[1.0, 0, 1], [0, 1, 0]])
EXACT = np.array(
    [[0.00367318, -0.17271496], [-0.26795764, -0.15593882], [-0.00651274, -0.25772969]]
)
CD_1 = np.array(
    [[-0.01515411, -0.17279805], [-0.23849022, -0.12080414], [-0.00722549, -0.24194257]]
)


@pytest.fixture(scope="module")
def found():
    """All that is compared with golden values, in one compiled program."""

    def everything(machine, data):
        visible, hidden = likelihood.every_state(3), likelihood.every_state(2)
        mean = jax.grad(lambda machine: likelihood.log_likelihood(machine, data).mean())
        return {
            "log Z": likelihood.log_partition(machine),
            "probabilities": jnp.exp(likelihood.log_likelihood(machine, visible)),
            "energies": rbm.energy(machine, visible[:, None], hidden[None]),
            "free energies": rbm.free_energy(machine, visible),
            "exact": likelihood.expected_gradient(machine, data),
            "by jax": mean(machine),
            "CD": {k: likelihood.expected_gradient(machine, data, k) for k in (1, 5)},
            "classes": rbm.visible_probabilities(machine, hidden, classes=2),
        }

    return jax.device_get(jax.jit(everything)(SMALL, DATA))


def test_golden_probabilities_and_partition_function(found):
    np.testing.assert_allclose(np.exp(found["log Z"]), 90.87055607846298, 1e-5)
    golden = [0.04255568, 0.05224063, 0.17490521, 0.21471065]
    golden += [0.06049799, 0.08203235, 0.15834683, 0.21471065]
    np.testing.assert_allclose(found["probabilities"], golden, 1e-5)


def test_energies_are_those_of_every_pair_of_states(found):
    w, b, c = (np.asarray(part, np.float64) for part in SMALL)
    visible, hidden = (list(itertools.product((0.0, 1), repeat=units)) for units in (3, 2))
    expected = [[-np.dot(b, v) - np.dot(c, h) - v @ w @ h for h in hidden] for v in visible]
    np.testing.assert_allclose(found["energies"], expected, atol=1e-6)
    free = -np.log(np.sum(np.exp(-np.array(expected)), axis=1))
    np.testing.assert_allclose(found["free energies"], free, rtol=1e-6)


def test_golden_gradients_exact_and_of_contrastive_divergence(found):
    np.testing.assert_allclose(found["exact"].weights, EXACT, atol=2e-7)
    for exact, by_jax in zip(found["exact"], found["by jax"], strict=True):
        np.testing.assert_allclose(exact, by_jax, atol=1e-6)
    np.testing.assert_allclose(found["CD"][1].weights, CD_1, atol=2e-7)
    for steps, cosine in ((1, 0.99651), (5, 0.99999998)):
        biased = found["CD"][steps].weights
        product = np.sum(biased * EXACT) / np.linalg.norm(biased) / np.linalg.norm(EXACT)
        np.testing.assert_allclose(product, cosine, atol=5e-6)


def test_a_group_of_classes_is_a_softmax(found):
    w, b, _ = (np.asarray(part, np.float64) for part in SMALL)
    fields = b + np.array(list(itertools.product((0.0, 1), repeat=2))) @ w.T
    group = np.exp(fields[:, 1:]) / np.exp(fields[:, 1:]).sum(1, keepdims=True)
    expected = np.hstack([1 / (1 + np.exp(-fields[:, :1])), group])
    np.testing.assert_allclose(found["classes"], expected, rtol=1e-5)


@pytest.mark.slow
def test_sampled_gradients_have_the_expected_mean():
    keys, chains = jax.random.split(jax.random.key(0), 20_000), jnp.zeros((2, 2))
    sampled, _ = jax.vmap(lambda key: CD(1)(key, SMALL, DATA, chains))(keys)
    expected = likelihood.expected_gradient(SMALL, DATA, 1)
    for found, mean in zip(sampled, expected, strict=True):
        deviation = jnp.std(found, axis=0) / np.sqrt(len(keys))
        assert (jnp.abs(found.mean(0) - mean) <= 4 * deviation + 1e-6).all()


def test_the_mean_gradient_of_units_that_are_sure():
    """With weights without bounds a step copies the bit, so that CD-1 sees nothing to learn."""
    sure = RBM(jnp.array([[1e4]]), jnp.array([-5e3]), jnp.array([-5e3]))
    for part in likelihood.expected_gradient(sure, jnp.array([[0.0], [1.0], [1.0]]), 1):
        np.testing.assert_allclose(part, 0, atol=1e-6)


def test_states_of_every_dtype():
    for dtype in (bool, np.uint8, np.float16):
        bits = jnp.asarray(DATA, dtype)
        np.testing.assert_allclose(
            rbm.free_energy(SMALL, bits), rbm.free_energy(SMALL, DATA), rtol=1e-6
        )
        assert rbm.start(jax.random.key(0), 3, 2, bits[0]).visible.dtype == jnp.float32


@pytest.mark.slow
def test_persistent_chains_come_to_the_model():
    """Their gradient, averaged, is the exact one, which that of CD-1 is not."""
    rule, data = PCD(1), jnp.tile(DATA, (500, 1))

    def update(chains, key):
        gradient, chains = rule(key, SMALL, data, chains)
        return chains, gradient.weights

    keys = jax.random.split(jax.random.key(1), 200)
    _, gradients = jax.lax.scan(update, jnp.full((1000, 2), 0.5), keys)
    np.testing.assert_allclose(gradients[20:].mean(0), EXACT, atol=0.006)
    assert np.abs(CD_1 - EXACT).max() > 0.03


@pytest.mark.parametrize(("size", "count", "best"), [(2, 6, -1.79176), (3, 14, -2.63906)])
def test_bars_and_stripes(size, count, best):
    pictures = likelihood.bars_and_stripes(size)
    assert pictures.shape == (count, size * size) == np.unique(pictures, axis=0).shape
    np.testing.assert_allclose(-np.log(len(pictures)), best, atol=1e-5)


@pytest.mark.slow
def test_the_exact_likelihood_of_bars_and_stripes_rises():
    data = jnp.asarray(np.tile(likelihood.bars_and_stripes(2), (500, 1)))
    found = []
    train_layer(
        jax.random.key(0),
        *(data, 8, CD(1)),
        epochs=40,
        batch_size=60,
        decay=0.0,
        observe=lambda _, learning: found.append(
            likelihood.log_likelihood(learning.params, data).mean()
        ),
    )
    assert found[0] < -2.5 and -2.0 < found[-1] < -1.79176
    assert found[-1] == max(found) or np.argmax(found) > 30  # still going up, but for noise


@pytest.mark.slow
def test_annealing_finds_the_partition_function():
    machine = rbm.start(jax.random.key(0), 12, 7)
    machine = machine._replace(weights=100 * machine.weights, hidden=jnp.linspace(-1, 1, 7))
    exact = likelihood.log_partition(machine)
    upside_down = RBM(machine.weights.T, machine.hidden, machine.visible)
    np.testing.assert_allclose(likelihood.log_partition(upside_down), exact, rtol=1e-6)
    base = jnp.linspace(-0.5, 0.5, 12)
    found, deviation = likelihood.annealed_log_partition(jax.random.key(1), machine, base)
    assert abs(found - exact) < 4 * deviation < 0.2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rbm.free_energy(SMALL, jnp.ones((4, 2))), r"visible has shape \[4, 2\]"),
        (lambda: rbm.visible_probabilities(SMALL, jnp.ones(3)), r"hidden has shape \[3\]"),
        (lambda: rbm.start(jax.random.key(0), 3, 2, jnp.ones(2)), r"means have shape \[2\]"),
        (lambda: CD(0), "steps must be"),
        (lambda: rbm.gibbs(jax.random.key(0), SMALL, jnp.ones((4, 2)), 0), "steps must be"),
        (lambda: rbm.visible_probabilities(SMALL, jnp.ones(2), 4), "classes is 4, expected at mo"),
        (lambda: rbm.sample(jax.random.key(0), jnp.ones(3), 4), "classes is 4, expected at most"),
        (lambda: rbm.sample(jax.random.key(0), jnp.ones(3), -1), "classes must be"),
        (lambda: likelihood.expected_gradient(SMALL, DATA[:0], 1), "no examples"),
        (lambda: likelihood.expected_gradient(SMALL, DATA[0], 1), r"shape \[3\], expected"),
        (lambda: likelihood.every_state(21), "21 units"),
        (
            lambda: likelihood.annealed_log_partition(jax.random.key(0), SMALL, jnp.ones(2)),
            r"base has shape \[2\], expected \[3\]",
        ),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError, match=words):
        call()
