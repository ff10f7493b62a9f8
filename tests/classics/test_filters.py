"""Convolution by hand, against NumPy, SciPy and `jax.grad`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, signal

from nnlab.classics.filters import LAPLACE, SOBEL, gaussian, input_gradient
from nnlab.errors import InputError
from nnlab.ops.adder import adder_conv
from nnlab.ops.convolution import conv, true_conv


def floats(numbers) -> Any:
    return np.asarray(numbers, np.float32)


GENERATOR = np.random.default_rng(0)
IMAGE = floats(GENERATOR.uniform(size=(9, 7)))


def by(product, x, kernel, **options):
    return np.asarray(product(x[None, ..., None], kernel[..., None, None], **options))[0, ..., 0]


def test_sizes_and_values_of_the_three_paddings():
    """The example of `numpy.convolve`'s documentation, and of `numpy.correlate`'s."""
    x, kernel = floats([1, 2, 3]), floats([0, 1, 0.5])
    for product, mode, expected in (
        (true_conv, "full", [0, 1, 2.5, 4, 1.5]),
        (true_conv, "same", [1, 2.5, 4]),
        (true_conv, "valid", [2.5]),
        (conv, "full", [0.5, 2, 3.5, 3, 0]),
        (conv, "same", [2, 3.5, 3]),
        (conv, "valid", [3.5]),
    ):
        assert by(product, x, kernel, padding=mode.upper()).tolist() == expected
    image = np.arange(42, dtype=np.float32).reshape(6, 7)
    for mode in ("full", "same", "valid"):
        expected = signal.convolve2d(image, SOBEL, mode)
        np.testing.assert_array_equal(by(true_conv, image, SOBEL, padding=mode.upper()), expected)


def test_the_gradient_is_the_wide_convolution():
    x = floats(GENERATOR.normal(size=(2, 5, 6, 2)))
    kernel = floats(GENERATOR.normal(size=(3, 2, 2, 3)))
    g = floats(GENERATOR.normal(size=(2, 3, 5, 3)))
    expected = jax.grad(lambda x: jnp.sum(g * conv(x, kernel, padding="VALID")))(x)
    np.testing.assert_allclose(input_gradient(g, kernel), expected, rtol=1e-5, atol=1e-5)
    # By hand: outputs 1 x0 + 2 x1 and 1 x1 + 2 x2, with gradients 10 and 20.
    narrow = input_gradient(floats([[[10], [20]]]), floats([[[1]], [[2]]]))
    assert np.ravel(narrow).tolist() == [10, 40, 40]


def test_kernels_by_hand_are_those_of_scipy():
    inside = slice(3, -3), slice(3, -3)
    smooth = ndimage.gaussian_filter(IMAGE, 1.5, radius=3)[inside]
    np.testing.assert_allclose(
        by(conv, IMAGE, gaussian(7, 1.5), padding="VALID"), smooth, rtol=1e-5
    )
    inside = slice(1, -1), slice(1, -1)
    for kernel, expected in (
        (SOBEL, ndimage.sobel(IMAGE, axis=1)),
        (SOBEL.T, ndimage.sobel(IMAGE, axis=0)),
        (LAPLACE, ndimage.laplace(IMAGE)),
    ):
        ours = by(conv, IMAGE, kernel, padding="VALID")
        np.testing.assert_allclose(ours, expected[inside], atol=1e-5)


@pytest.mark.parametrize("kernel", [SOBEL, LAPLACE])
def test_an_adder_with_large_weights_is_a_product_with_signs(kernel):
    signs = np.where(kernel >= 1, 1, -1).astype(np.float32)
    expected = by(conv, IMAGE, signs, padding="VALID") - np.sum(signs * kernel)
    np.testing.assert_allclose(by(adder_conv, IMAGE, kernel, padding="VALID"), expected, atol=1e-5)


def test_two_adders_of_an_edge_are_a_product():
    edge = np.tile(floats([0, 0.5, 1]), (3, 1))
    both = [by(adder_conv, IMAGE, kernel, padding="VALID") for kernel in (edge, 1 - edge)]
    prewitt = ndimage.prewitt(IMAGE, axis=1)[1:-1, 1:-1]
    np.testing.assert_allclose(both[0] - both[1], 2 * prewitt, atol=1e-5)


def test_bad_sizes():
    for size, sigma in ((4, 1.0), (0, 1.0), (3, 0.0), (3, float("nan"))):
        with pytest.raises(InputError):
            gaussian(size, sigma)
