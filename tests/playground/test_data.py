"""Data sets and random numbers of the playground."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32

from nnlab.playground import data
from nnlab.playground.network import Settings


def test_random_words_are_those_of_threefry():
    index = jnp.arange(5, dtype=jnp.uint32)
    key = jnp.array([7, 1001], jnp.uint32)
    expected = threefry_2x32(key, jnp.concatenate([index, jnp.zeros_like(index)]))
    np.testing.assert_array_equal(jnp.concatenate(data.words(index, *key)), expected)


def test_initial_weights_have_the_spread_of_their_layer():
    adder = data.start("adder", 40, 50, 1, seed=3)
    assert adder.std() == pytest.approx(1, abs=0.05) and abs(adder.mean()) < 0.05
    he = data.start("float", 40, 50, 1, seed=3)
    assert he.std() == pytest.approx((2 / 40) ** 0.5, rel=0.05)
    assert np.abs(data.start("binary", 40, 50, 1, seed=3)).max() <= (6 / 90) ** 0.5


@pytest.mark.parametrize("name", ["circle", "xor", "gauss", "spiral"])
def test_sets_have_every_class_and_no_noise_separates_them(name):
    for classes in (2, 4):
        xy, label = data.data(Settings(data=name, classes=classes, points=300, seed=5))
        assert xy.shape == (300, 2) and np.abs(xy).max() <= 3
        assert set(label.tolist()) == set(range(classes))
    if name == "circle":
        assert np.hypot(*xy[label == 0].T).max() < np.hypot(*xy[label == 1].T).min()
