"""Locally connected layers equal Flax's in floats, and sums by brute force as adders."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from nnlab.arithmetics import ADDER, FLOAT
from nnlab.classics.local import LocalConv, windows
from nnlab.errors import InputError

WINDOW: Any = {"strides": (2, 1), "padding": ((1, 0), (0, 2))}
IMAGES: Any = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
SHAPE = (2, 2, 5, 4)  # batch, rows, columns, features of windows (3, 2) there, strides (2, 1)


def test_windows_are_those_of_flax_and_floats_are_its_local_convolution():
    layer = LocalConv(4, (3, 2), **WINDOW)
    shape: Any
    [shape] = jax.tree.leaves(jax.eval_shape(layer.init, jax.random.key(0), IMAGES))
    kernel = np.random.default_rng(1).normal(size=shape.shape).astype(np.float32)
    variables = {"params": {"dense": {"kernel": kernel}}}
    assert kernel.shape == (10, 18, 4)
    # Flax has the inputs of a window before its taps.
    theirs = kernel.reshape(2, 5, 6, 3, 4).swapaxes(2, 3).reshape(2, 5, 18, 4)
    flax = nn.ConvLocal(4, (3, 2), use_bias=False, **WINDOW)
    expected: Any = flax.apply({"params": {"kernel": theirs}}, IMAGES)
    assert expected.shape == SHAPE
    y: Any = layer.apply(variables, IMAGES)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_adders_by_brute_force_and_with_one_kernel_everywhere():
    layer = LocalConv(4, (3, 2), arithmetic=ADDER, **WINDOW)
    kernel = np.random.default_rng(1).normal(size=(10, 18, 4)).astype(np.float32)
    y: Any = layer.apply({"params": {"dense": {"adder_kernel": kernel}}}, IMAGES)
    seen = np.asarray(windows(IMAGES, (3, 2), **WINDOW), float).reshape(2, 10, 18)
    expected: Any = -np.abs(seen[..., None] - kernel).sum(2).reshape(SHAPE)
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    shared = np.broadcast_to(kernel[:1], kernel.shape)
    y = layer.apply({"params": {"dense": {"adder_kernel": shared}}}, IMAGES)
    conv = ADDER.conv(4, (3, 2), **WINDOW)
    filters = {"params": {"adder_kernel": kernel[0].reshape(3, 2, 3, 4)}}
    expected = conv.apply(filters, IMAGES)
    np.testing.assert_allclose(y, expected, rtol=1e-5)


def test_bad_sizes():
    with pytest.raises(ValueError, match="spans 9 pixels of height"):
        LocalConv(2, 9, padding="VALID", arithmetic=FLOAT).init(jax.random.key(0), IMAGES)
    name: Any = "adder"
    with pytest.raises(InputError, match="arithmetic"):
        LocalConv(2, 3, arithmetic=name)
    with pytest.raises(InputError, match="images"):
        windows(IMAGES[0], 3)
