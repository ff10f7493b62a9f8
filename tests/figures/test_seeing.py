"""What layers see, against windows by hand and brute force."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.arithmetics import ADDER, BINARY, FLOAT
from nnlab.errors import InputError
from nnlab.figures.seeing import (
    Strongest,
    Window,
    activations,
    cut_middle,
    map_layers,
    maximise,
    patches,
    receptive_field,
    strongest,
)
from nnlab.models import LeNet5, SmallCNN

KEY = jax.random.key(0)


class Two(nn.Module):
    """A convolution of 3 with a step of 2, a maximum of 2, and one of 2x1 with padding."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(3, (3, 3), 2, padding="VALID", name="one")(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.Conv(4, (2, 1), padding=((1, 0), (0, 0)), name="two")(x)
        return nn.Dense(2, name="last")(x.reshape(len(x), -1))


@pytest.fixture(scope="module")
def two() -> tuple[nn.Module, Any]:
    model = Two()
    return model, model.init(KEY, jnp.zeros((1, 17, 17, 1)))


@pytest.mark.slow
def test_layers_and_their_maps(two):
    images = jax.random.normal(KEY, (3, 17, 17, 1))
    assert map_layers(two[0], two[1], images) == ["one", "two"]
    params = two[1]["params"]
    maps = activations(two[0], two[1], "one")(images)
    expected = nn.Conv(3, (3, 3), 2, padding="VALID").apply({"params": params["one"]}, images)
    np.testing.assert_array_equal(maps, expected)
    assert activations(two[0], two[1], "last")(images).shape == (3, 1, 1, 2)
    with pytest.raises(InputError, match="no layer 'three'; expected one such as one, two"):
        activations(two[0], two[1], "three")(images)


@pytest.mark.slow
def test_receptive_fields_by_hand(two):
    # One: 3, in steps of 2. Maximum: 3 + 2 = 5, in steps of 4. Two: 5 + 4 rows, one pixel of
    # padding before, 4 rows of the image.
    found = {
        name: receptive_field(KEY, activations(two[0], two[1], name), (17, 17, 1))
        for name in ("one", "two")
    }
    assert found == {
        "one": Window((0, 0), (2, 2), (3, 3)),
        "two": Window((-4, 0), (4, 4), (9, 5)),
    }
    assert found["two"].at((2, 1)) == (4, 4)
    whole = receptive_field(KEY, activations(two[0], two[1], "last"), (17, 17, 1))
    assert whole == Window((0, 0), (0, 0), (17, 17))


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", [FLOAT, ADDER, BINARY], ids=lambda each: each.name)
def test_receptive_fields_in_every_arithmetic(arithmetic):
    model = LeNet5(arithmetic=arithmetic, first=arithmetic)
    variables: Any = model.init(KEY, jnp.zeros((1, 32, 32, 1)))
    if arithmetic is ADDER:  # whose ReLUs are shut without statistics of data
        with pytest.raises(InputError, match="no derivative"):
            receptive_field(KEY, activations(model, variables, "AdderConv_1"), (32, 32, 1))
        variables["params"]["BatchNorm_0"]["bias"] += 100.0
    one, two = (
        receptive_field(KEY, activations(model, variables, layer), (32, 32, 1))
        for layer in map_layers(model, variables, jnp.zeros((1, 32, 32, 1)))
    )
    assert one == Window((0, 0), (1, 1), (5, 5))
    assert two == Window((0, 0), (2, 2), (14, 14))  # 5 + 1 of the maximum + 4 steps of 2


def test_strongest_patches_by_brute_force():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(7, 6, 5, 2)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 2, 4)).astype(np.float32)

    def maps(x: Any) -> Any:
        return jax.lax.conv(
            x.transpose(0, 3, 1, 2), jnp.asarray(kernel).transpose(3, 2, 0, 1), (1, 1), "SAME"
        ).transpose(0, 2, 3, 1)

    found = strongest(maps, jnp.asarray(images), 3)
    wide = np.pad(images.astype(np.float64), [(0, 0), (1, 1), (1, 1), (0, 0)])
    window = Window((-1, -1), (1, 1), (3, 3))
    cut = patches(jnp.asarray(images), window, found)
    assert cut.shape == (4, 3, 3, 3, 2)
    for unit in range(4):
        best = []
        for number in range(7):
            sums = [
                ((wide[number, i : i + 3, j : j + 3] * kernel[..., unit]).sum(), number, i, j)
                for i in range(6)
                for j in range(5)
            ]
            best.append(max(sums))
        for place, (value, number, i, j) in enumerate(sorted(best, reverse=True)[:3]):
            assert found.examples[unit, place] == number
            assert found.places[unit, place].tolist() == [i, j]
            np.testing.assert_allclose(found.values[unit, place], value, rtol=1e-4)
            got = np.nan_to_num(cut[unit, place])
            np.testing.assert_allclose(got, wide[number, i : i + 3, j : j + 3], rtol=1e-6)
    with pytest.raises(InputError, match="7 images were given, expected at least count = 8"):
        strongest(maps, jnp.asarray(images), 8)


def test_beside_an_image_is_nothing():
    image = jnp.arange(4.0).reshape(1, 2, 2, 1)
    found = Strongest(np.zeros((1, 1)), np.zeros((1, 1), int), np.zeros((1, 1, 2), int))
    cut = patches(image, Window((-1, 0), (1, 1), (2, 3)), found)[0, 0, ..., 0]
    np.testing.assert_array_equal(cut, [[np.nan] * 3, [0, 1, np.nan]])
    middle = cut_middle(image, Window((0, 0), (1, 1), (1, 1)), (2, 2))
    assert middle.tolist() == [[[[3.0]]]]


@pytest.mark.parametrize(
    "arithmetic", [ADDER, pytest.param(FLOAT, marks=pytest.mark.slow)], ids=lambda each: each.name
)
def test_the_maximum_of_an_adder_is_its_filter_and_of_a_product_at_the_bounds(arithmetic):
    shape = 4, 4, 2
    layer = arithmetic.conv(3, shape[:2], padding="VALID", use_bias=False)
    kernel = jax.random.uniform(KEY, (*shape, 3), minval=-0.5, maxval=0.5)
    (name,) = jax.eval_shape(layer.init, KEY, jnp.zeros((1, *shape)))["params"]
    maps: Any = functools.partial(layer.apply, {"params": {name: kernel}})
    images, responses = maximise(KEY, maps, shape, (-1.0, 2.0))
    filters = np.moveaxis(np.asarray(kernel), -1, 0)
    if arithmetic is ADDER:
        np.testing.assert_allclose(images, filters, atol=0.02)
        np.testing.assert_allclose(responses, 0, atol=0.2)
    else:
        sides = np.where(filters > 0, 2.0, -1.0)
        assert np.mean(np.abs(images - sides) < 1e-3) > 0.9
        np.testing.assert_allclose(responses, np.sum(sides * filters, (1, 2, 3)), rtol=0.01)
    with pytest.raises(InputError, match="a lower one below an upper one"):
        maximise(KEY, maps, shape, (1.0, 1.0))


@pytest.mark.slow
def test_signs_are_maximised_too():
    model = SmallCNN(arithmetic=BINARY)
    variables = model.init(KEY, jnp.zeros((1, 8, 8, 1)))
    maps = activations(model, variables, "BinaryConv_0")
    _, responses = maximise(KEY, maps, (8, 8, 1), (-2.0, 2.0))
    random = maps(jax.random.uniform(KEY, (64, 8, 8, 1), minval=-2, maxval=2))[:, 4, 4]
    assert (responses >= random.mean(0)).all() and (responses > random.max(0)).mean() > 0.5
