"""Crops and flips against a loop over images in NumPy with the same draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.vision import chain, cutout, random_crop, random_crop_and_flip, random_flip

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).normal(size=(16, 8, 6, 3)).astype(np.float32)


def crop_loop(key, images, padding):
    offsets = np.asarray(jax.random.randint(key, (len(images), 2), 0, 2 * padding + 1))
    _, height, width, _ = images.shape
    margin = (padding, padding)
    cropped = []
    for image, (row, column) in zip(images, offsets, strict=True):
        padded = np.pad(image, (margin, margin, (0, 0)))
        cropped.append(padded[row : row + height, column : column + width])
    return np.stack(cropped)


def flip_loop(key, images):
    mirrored = np.asarray(jax.random.bernoulli(key, shape=(len(images),)))
    return np.stack([im[:, ::-1] if m else im for im, m in zip(images, mirrored, strict=True)])


crop = jax.jit(random_crop, static_argnames="padding")
flip = jax.jit(random_flip)
both = jax.jit(random_crop_and_flip)
hole = jax.jit(cutout, static_argnames="size")


@pytest.mark.parametrize("padding", [0, 1, 4])
def test_equal_the_loop(padding):
    images = np.random.default_rng(padding).integers(0, 256, (5, 3, 6, 2), np.uint8)
    for key in jax.random.split(KEY, 20):
        cropped, flipped = crop(key, images, padding=padding), flip(key, images)
        assert cropped.dtype == flipped.dtype == images.dtype
        np.testing.assert_array_equal(cropped, crop_loop(key, images, padding))
        np.testing.assert_array_equal(flipped, flip_loop(key, images))


@pytest.mark.parametrize("function", [crop, flip, both])
def test_a_key_decides(function):
    first = function(KEY, IMAGES)
    np.testing.assert_array_equal(first, function(KEY, IMAGES))
    assert not np.array_equal(first, function(jax.random.key(1), IMAGES))


def test_under_vmap_and_scan():
    keys, batches = jax.random.split(KEY, 3), np.stack([IMAGES, IMAGES + 1, IMAGES + 2])
    expected = [both(key, batch) for key, batch in zip(keys, batches, strict=True)]
    np.testing.assert_array_equal(jax.vmap(both)(keys, batches), expected)
    _, scanned = jax.lax.scan(lambda carry, x: (carry, both(*x)), None, (keys, batches))
    np.testing.assert_array_equal(scanned, expected)


def test_every_offset_and_both_sides_occur():
    image = np.zeros((4000, 9, 9, 1), np.float32)
    image[:, 4, 4] = 1
    spots = np.asarray(crop(KEY, image)).sum(axis=(0, 3))
    assert spots.sum() == 4000 and spots.min() > 20  # 81 places, about 49 each
    right = np.asarray(flip(KEY, np.arange(2.0).reshape(1, 1, 2, 1).repeat(4000, 0)))
    assert 1850 < right[:, 0, 0, 0].sum() < 2150


def test_crop_keeps_little_besides_the_result():
    images = jax.ShapeDtypeStruct((128, 32, 32, 3), jnp.float32)
    compiled = jax.jit(random_crop).lower(KEY, images).compile()
    analysis = compiled.memory_analysis()
    if analysis is None:
        pytest.skip("this backend does not analyse memory")
    padded_bytes = 128 * 40 * 40 * 3 * 4
    assert analysis.temp_size_in_bytes < 1.1 * padded_bytes


@pytest.mark.parametrize("function", [random_crop, random_flip, random_crop_and_flip])
def test_names_the_shape(function):
    with pytest.raises(InputError, match=r"^images have shape \(8, 6, 3\), expected \[n, height"):
        function(KEY, IMAGES[0])


def test_names_the_padding():
    with pytest.raises(InputError, match=r"^padding is -1, expected at least 0$"):
        random_crop(KEY, IMAGES, -1)


@pytest.mark.parametrize("size", [0, 3, 4, 16])
def test_cutout_equals_the_loop(size):
    for key in jax.random.split(KEY, 4):
        middles = np.asarray(jax.random.randint(key, (len(IMAGES), 2), 0, jnp.array([8, 6])))
        expected = IMAGES.copy()
        for image, (row, column) in zip(expected, middles, strict=True):
            top, left = row - size // 2, column - size // 2
            image[max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = 7
        np.testing.assert_array_equal(hole(key, IMAGES, size, 7.0), expected)


def test_a_chain_gives_each_its_key():
    first, second = jax.random.split(KEY)
    chained = chain(crop, lambda key, images: hole(key, images, 4, 7.0))
    np.testing.assert_array_equal(
        chained(KEY, jnp.asarray(IMAGES)), hole(second, crop(first, IMAGES), 4, 7.0)
    )
    np.testing.assert_array_equal(chain()(KEY, jnp.asarray(IMAGES)), IMAGES)


def test_cutout_names_the_size():
    with pytest.raises(InputError, match=r"^size is -1, expected at least 0$"):
        cutout(KEY, IMAGES, -1)
