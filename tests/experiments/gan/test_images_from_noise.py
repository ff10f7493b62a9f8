"""The experiment's images go to the networks' range and back, and its names say who plays."""

import numpy as np
import pytest

from nnlab.arithmetics import ADDER, FLOAT

SCRIPT = "gan/images_from_noise"


@pytest.mark.parametrize(("sides", "size"), [((8, 8, 1), 16), ((28, 28, 1), 32), ((32, 32, 3), 32)])
def test_images_come_back_as_they_were(sides, size, script):
    images = np.random.default_rng(0).integers(0, 256, (3, *sides), np.uint8)
    images.flat[:2] = 0, 255
    pixels = script.as_pixels(images)
    assert pixels.shape == (3, size, size, sides[-1])
    assert (float(pixels.min()), float(pixels.max())) == (-1, 1)
    np.testing.assert_array_equal(script.stored(pixels, images.shape), images)


@pytest.mark.parametrize(
    ("name", "game", "generator", "critic"),
    [
        ("dcgan", "dcgan", FLOAT, FLOAT),
        ("wgan-gp-adder", "wgan-gp", ADDER, ADDER),
        ("hinge-adder-generator", "hinge", ADDER, FLOAT),
        ("dcgan-adder-critic", "dcgan", FLOAT, ADDER),
    ],
)
def test_names_of_games(name, game, generator, critic, script):
    assert name in script.NAMES
    assert script.arithmetics_of(name) == (script.GAMES[game], generator, critic)
