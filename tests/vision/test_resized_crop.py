"""Random resized crops against Pillow, and where they lie."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.vision import random_resized_crop

KEY = jax.random.key(0)


def rectangles(images, **options):
    """The rectangles of a batch, told by images whose channels are row and column numbers."""
    n, height, width = images
    places = np.moveaxis(np.mgrid[:height, :width], 0, -1).astype(np.float32)
    cut = jax.jit(functools.partial(random_resized_crop, **options))(
        KEY, np.broadcast_to(places, (n, *places.shape))
    )
    # Where a rectangle does not shrink, its first and last pixels stay what they are.
    first, last = np.asarray(cut[:, 0, 0]), np.asarray(cut[:, -1, -1])
    return np.round(first).astype(int), np.round(last).astype(int) + 1


def test_a_rectangle_is_cut_and_resized_as_pillow_does():
    Image = pytest.importorskip("PIL.Image")
    starts, ends = rectangles((12, 20, 17))
    images = np.random.default_rng(0).normal(size=(12, 20, 17, 1)).astype(np.float32)
    for size in ((8, 6), (31, 40)):
        found = jax.jit(functools.partial(random_resized_crop, size=size))(KEY, images)
        assert found.shape == (12, *size, 1)
        for image, got, start, end in zip(images, found, starts, ends, strict=True):
            cut = Image.fromarray(image[start[0] : end[0], start[1] : end[1], 0])
            expected = cut.resize(size[::-1], Image.Resampling.BILINEAR)
            np.testing.assert_allclose(got[..., 0], expected, atol=2e-5)


@pytest.mark.slow
def test_areas_and_shapes_are_those_asked_for():
    starts, ends = rectangles((1000, 40, 40), scale=(0.25, 0.75), ratio=(0.5, 2.0))
    height, width = (ends - starts).T
    area, shape = height * width / 1600, width / height
    assert 0.25 - 0.02 < area.min() < 0.27 and 0.7 < area.max() < 0.75 + 0.02
    assert 0.47 < shape.min() < 0.53 and 1.9 < shape.max() < 2.1
    assert abs(np.log(shape).mean()) < 0.05  # of a uniform logarithm
    assert (starts >= 0).all() and (ends <= 40).all()
    assert abs((starts / np.maximum(40 - (ends - starts), 1))[height < 35].mean() - 0.5) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sides", "start", "end"),
    [((60, 9), (24, 0), (36, 9)), ((9, 60), (0, 24), (9, 36)), ((12, 12), (1, 0), (10, 12))],
)
def test_where_no_rectangle_fits_the_middle_is_taken(sides, start, end):
    """A whole area of another shape is too large; of what is 4 : 3 the largest stays."""
    ratio = (4 / 3, 4 / 3) if sides == (12, 12) else (3 / 4, 4 / 3)
    starts, ends = rectangles((4, *sides), scale=(1.0, 1.0), ratio=ratio)
    assert (starts == start).all() and (ends - starts == np.subtract(end, start)).all()


def test_integers_are_rounded():
    images = np.random.default_rng(0).integers(0, 256, (3, 9, 9, 3)).astype(np.uint8)
    both = jax.jit(lambda *each: [random_resized_crop(KEY, images) for images in each])
    found, exact = both(images, images.astype(np.float32))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.round(exact))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": (0, 8)}, "height must be an integer of at least 1, not 0"),
        ({"scale": (0.0, 1.0)}, r"scale must be two numbers from above 0 to 1 in order, not \(0"),
        ({"scale": (0.5, 1.5)}, "scale must be"),
        ({"ratio": (2.0, 1.0)}, "ratio must be two positive numbers in order"),
    ],
)
def test_bad_input(options, said):
    with pytest.raises(InputError, match=said):
        random_resized_crop(KEY, jnp.zeros((1, 8, 8, 1)), **options)
