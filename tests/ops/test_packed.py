"""Binary products of packed signs, against those of signs in floats."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.errors import InputError
from nnlab.ops.binary import binary_conv, sign_ste
from nnlab.ops.packed import binary_conv_packed, binary_dense_packed, pack_signs


def normal(seed, *shape, dtype=jnp.float32) -> Any:
    return np.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def test_golden():
    # Bits from the lowest: +1 +1 -1 +1 is 0b1011; zeros of either sign are +1.
    assert pack_signs(jnp.array([0.5, 0.0, -2.0, -0.0])).tolist() == [0b1011]
    # Row [+1, -1], filter [+1, +1, -1]: 1 + 1 = 2 and 1 - 1 = 0, as in the test of `binary_conv`.
    x = pack_signs(jnp.array([[[[1.0], [-1.0]]]]))
    kernel = pack_signs(jnp.array([[[[1.0]], [[1.0]], [[-1.0]]]]), axis=2)
    assert np.ravel(binary_conv_packed(x, kernel, channels=1)).tolist() == [2, 0]


@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.data())
def test_equals_binary_conv_over_shapes_windows_and_dtypes(convolutions, data):
    shape, kernel_shape, options = data.draw(convolutions)
    channels = data.draw(st.sampled_from([1, 5, 32, 40, 64]))
    dtype = data.draw(st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16]))
    x = normal(0, *shape[:3], channels, dtype=dtype)
    kernel = normal(1, *kernel_shape[:2], channels, kernel_shape[3], dtype=dtype)
    expected = binary_conv(jnp.float32(sign_ste(x)), jnp.float32(sign_ste(kernel)), **options)
    packed = functools.partial(binary_conv_packed, channels=channels, **options)
    y = jax.jit(packed)(pack_signs(x), pack_signs(kernel, axis=2))
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("axis", [0, -2])
def test_axis(axis):
    x = normal(0, 3, 40, 33)
    expected = np.moveaxis(jax.jit(pack_signs)(np.moveaxis(x, axis, -1)), -1, axis)
    np.testing.assert_array_equal(jax.jit(lambda x: pack_signs(x, axis=axis))(x), expected)


def test_packing_stops_gradients():
    def loss(x):
        return pack_signs(x).astype(jnp.float32).sum() + x.sum()

    np.testing.assert_array_equal(jax.jit(jax.grad(loss))(normal(0, 40)), np.ones(40))


def test_dense_takes_any_leading_axes_and_empty_ones():
    x, kernel = normal(0, 2, 3, 50), normal(1, 50, 4)
    expected = np.where(x >= 0, 1, -1) @ np.where(kernel >= 0, 1, -1)

    @jax.jit
    def dense(x, kernel):
        words = pack_signs(x), pack_signs(kernel, axis=0)
        return binary_dense_packed(*words, channels=x.shape[-1])

    np.testing.assert_array_equal(dense(x, kernel), expected)
    np.testing.assert_array_equal(dense(x[0, 0], kernel), expected[0, 0])
    for shape, features in (((0, 3), 2), ((2, 0), 3), ((2, 3), 0)):
        y = dense(np.ones(shape, np.float32), np.ones((shape[-1], features), np.float32))
        np.testing.assert_array_equal(y, np.full((shape[0], features), shape[-1]))


def test_errors():
    x: Any = np.zeros((2, 5, 5, 2), np.uint32)
    kernel: Any = np.zeros((3, 3, 2, 4), np.uint32)
    for channels in (32, 65, 0, -1):
        message = rf"^binary_conv_packed needs .* not 2 in x \(2, 5, 5, 2\) for {channels} channels"
        with pytest.raises(InputError, match=message):
            binary_conv_packed(x, kernel, channels=channels)
    with pytest.raises(InputError, match="for 65 channels"):
        binary_dense_packed(x, kernel[0, 0], channels=65)
    with pytest.raises(TypeError, match=r"^binary_conv_packed expects kernel in uint32, not int32"):
        binary_conv_packed(x, kernel.astype(np.int32), channels=40)
    with pytest.raises(ValueError, match=r"1 in x .* 2 in kernel"):
        binary_conv_packed(x[..., :1], kernel, channels=32)
    with pytest.raises(TypeError, match=r"^pack_signs expects a floating x, not uint32"):
        pack_signs(x)
    with pytest.raises(InputError, match=r"^pack_signs needs an axis of x \(2, 3\), not axis 2"):
        pack_signs(normal(0, 2, 3), axis=2)
