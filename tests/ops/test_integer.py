"""Adder products of bytes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.errors import InputError
from nnlab.ops.adder import adder_conv
from nnlab.ops.integer import adder_conv_uint8, adder_dense_uint8
from nnlab.testing import image_windows


def numbers(seed, *shape) -> Any:
    return np.asarray(np.random.default_rng(seed).integers(0, 256, shape), jnp.uint8)


def test_golden():
    # Row [10, 20], filter [1, 2, 3], zero point 5 at both ends:
    # |5 - 1| + |10 - 2| + |20 - 3| = 29 and |10 - 1| + |20 - 2| + |5 - 3| = 29.
    x = jnp.array([[[[10], [20]]]], jnp.uint8)
    kernel = jnp.array([[[[1]], [[2]], [[3]]]], jnp.uint8)
    assert np.ravel(adder_conv_uint8(x, kernel, padding_value=5)).tolist() == [-29, -29]
    assert np.ravel(adder_conv_uint8(x, kernel)).tolist() == [-26, -30]


@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.data())
def test_conv_over_shapes_and_windows(convolutions, data):
    shape, kernel_shape, options = data.draw(convolutions)
    zero = data.draw(st.integers(0, 255))
    x, kernel = numbers(0, *shape), numbers(1, *kernel_shape)
    # Numbers relative to the zero point, whose padding is 0.
    windows = image_windows(x.astype(int) - zero, kernel_shape, **options)[..., None]
    expected = -abs(windows - (kernel.astype(int) - zero)).sum((3, 4, 5))
    for value in (zero, np.uint8(zero), jnp.uint8(zero)):
        y = adder_conv_uint8(x, kernel, padding_value=value, **options)
        np.testing.assert_array_equal(y, expected)


def test_equals_the_floating_convolution():
    x, kernel = numbers(0, 2, 6, 5, 3), numbers(1, 3, 3, 3, 4)
    y = jax.jit(adder_conv_uint8)(x, kernel)
    np.testing.assert_array_equal(
        y, jax.jit(adder_conv)(np.asarray(x, np.float32), np.asarray(kernel, np.float32))
    )


def test_padding_value_may_be_traced_and_mapped():
    x, kernel = numbers(0, 2, 3, 3, 2), numbers(1, 3, 3, 2, 2)
    values = np.asarray([0, 7, 255], np.uint8)
    y = jax.jit(jax.vmap(lambda value: adder_conv_uint8(x, kernel, padding_value=value)))(values)
    for i, value in enumerate(values):
        expected = adder_conv_uint8(x, kernel, padding_value=int(value))
        np.testing.assert_array_equal(np.asarray(y)[i], expected)


def test_dense_takes_any_leading_axes_and_empty_ones():
    x, kernel = numbers(0, 2, 3, 13), numbers(1, 13, 4)
    expected = -abs(np.asarray(x, int)[..., None] - np.asarray(kernel, int)).sum(axis=-2)
    dense = jax.jit(adder_dense_uint8)
    np.testing.assert_array_equal(dense(x, kernel), expected)
    np.testing.assert_array_equal(dense(x[0, 0], kernel), expected[0, 0])
    for shape, features in (((0, 3), 2), ((2, 0), 3), ((2, 3), 0)):
        y = jax.eval_shape(adder_dense_uint8, numbers(0, *shape), numbers(0, shape[-1], features))
        assert y.shape == (shape[0], features) and y.dtype == jnp.int32


def test_errors():
    x, kernel = numbers(0, 2, 5, 5, 3), numbers(1, 3, 3, 3, 4)
    wrong: list[Any] = [-1, 256, 1.5, jnp.zeros(2, jnp.uint8)]
    for value in wrong:
        with pytest.raises(InputError, match=r"^padding_value must be an integer from 0 to 255"):
            adder_conv_uint8(x, kernel, padding_value=value)
    with pytest.raises(TypeError, match=r"^adder_conv_uint8 expects x in uint8, not float32\.$"):
        adder_conv_uint8(x.astype(np.float32), kernel)
    with pytest.raises(ValueError, match=r"2 in x .* 3 in kernel"):
        adder_conv_uint8(x[..., :2], kernel)
    with pytest.raises(ValueError, match="the window spans 9 pixels of height"):
        adder_conv_uint8(x, kernel, kernel_dilation=4, padding="VALID")
    with pytest.raises(TypeError, match=r"^adder_dense_uint8 expects kernel in uint8, not int32"):
        adder_dense_uint8(x, kernel[0, 0].astype(np.int32))
    with pytest.raises(ValueError, match=r"^adder_dense_uint8 expects x \[\.\.\., in\]"):
        adder_dense_uint8(x, kernel)
