"""RandAugment against Pillow, with the strengths that torchvision gives its changes."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.vision import rand_augment
from nnlab.vision.rand_augment import CHANGES

pytest.importorskip("PIL")
from PIL import Image, ImageEnhance, ImageOps

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
# Dark and of few levels, so that tables do something, with two images of one level.
IMAGES = np.concatenate(
    [
        RNG.integers(20, 200, (60, 11, 9, 3)),
        RNG.integers(0, 3, (58, 11, 9, 3)) * 70,
        np.full((2, 11, 9, 3), 90),
    ]
).astype(np.uint8)


def by_pillow(name, array, sign, magnitude):
    """One image [height, width, channels] changed as `torchvision.transforms.RandAugment` does."""
    image = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)
    size, part = image.size, sign * magnitude / 30
    fill = 128 if image.mode == "L" else (128, 128, 128)
    affine = functools.partial(
        image.transform, size, Image.Transform.AFFINE, resample=0, fillcolor=fill
    )
    cosine, sine = (f(math.radians(30 * part)) for f in (math.cos, math.sin))
    x, y = size[0] / 2, size[1] / 2
    bits = 8 - round(magnitude / (30 / 4))
    changed = {
        "Identity": lambda: image,
        "ShearX": lambda: affine((1, 0.3 * part, 0, 0, 1, 0)),
        "ShearY": lambda: affine((1, 0, 0, 0.3 * part, 1, 0)),
        "TranslateX": lambda: affine((1, 0, int(150 / 331 * size[0] * part), 0, 1, 0)),
        "TranslateY": lambda: affine((1, 0, 0, 0, 1, int(150 / 331 * size[1] * part))),
        "Rotate": lambda: affine(
            (cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y)
        ),
        "Posterize": lambda: ImageOps.posterize(image, bits),
        "Solarize": lambda: ImageOps.solarize(image, 255 * (1 - magnitude / 30)),  # pyright: ignore[reportArgumentType]
        "AutoContrast": lambda: ImageOps.autocontrast(image),
        "Equalize": lambda: ImageOps.equalize(image),
    }
    if name in changed:
        return np.asarray(changed[name]()).reshape(array.shape)
    return np.asarray(getattr(ImageEnhance, name)(image).enhance(1 + 0.9 * part)).reshape(
        array.shape
    )


one_layer = jax.jit(functools.partial(rand_augment, layers=1))


@pytest.mark.parametrize(("channels", "magnitude"), [(3, 3), (3, 9), (1, 28), (3, 28)])
def test_each_change_is_pillows(channels, magnitude):
    images = IMAGES[..., :channels]
    found = np.asarray(one_layer(KEY, images, magnitude=magnitude))
    first, second = jax.random.split(jax.random.split(KEY, 1)[0])
    changes = np.asarray(jax.random.randint(first, (len(images),), 0, 14))
    signs = np.where(jax.random.bernoulli(second, shape=(len(images),)), -1, 1)
    assert set(changes) == set(range(14))
    wrong = {}
    for image, got, change, sign in zip(images, found, changes, signs, strict=True):
        name = CHANGES[change]
        far = np.abs(got.astype(int) - by_pillow(name, image, sign, magnitude))
        # Rounding decides where a product is a whole number, and a place the edge of a pixel.
        bound = 1 if name in ("Brightness", "Color", "Contrast", "Sharpness", "AutoContrast") else 0
        wrong[name] = max(wrong.get(name, 0), int((far > bound).sum()), int((far > 0).mean() > 0.1))
    assert not any(wrong.values()), wrong


def test_floats_are_standardised_levels():
    mean, std = (np.array(each, np.float32) for each in ([0.5, 0.4, 0.3], [0.2, 0.25, 0.3]))
    floats = (IMAGES / np.float32(255) - mean) / std
    of_floats = jax.jit(functools.partial(rand_augment, layers=1, mean=[*mean], std=[*std]))
    found = of_floats(KEY, floats, magnitude=12)
    assert found.dtype == np.float32
    expected = np.asarray(one_layer(KEY, IMAGES, magnitude=12)) / 255
    np.testing.assert_allclose(found * std + mean, expected, atol=1e-6)


def test_without_layers_nothing_changes():
    np.testing.assert_array_equal(rand_augment(KEY, jnp.asarray(IMAGES), layers=0), IMAGES)


@pytest.mark.parametrize(
    ("images", "options", "said"),
    [
        (IMAGES[0], {}, r"^images have shape \(11, 9, 3\), expected \[n, height"),
        (IMAGES[..., :2], {}, "images have 2 channels, expected 1 or 3"),
        (IMAGES.astype(np.int32), {}, "images are int32, expected uint8 or floats"),
        (IMAGES, {"magnitude": 31}, "magnitude must be from 0 to 30, not 31"),
        (IMAGES, {"layers": -1}, "layers must be an integer of at least 0, not -1"),
        (IMAGES, {"mean": (0.5,)}, "mean and std belong together"),
    ],
)
def test_bad_input(images, options, said):
    with pytest.raises(InputError, match=said):
        rand_augment(KEY, jnp.asarray(images), **options)
