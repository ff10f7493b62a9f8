"""Rotary positions: golden values, distances alone, and scaled rates against PyTorch."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from nnlab.errors import InputError
from nnlab.layers import Attention
from nnlab.layers.rotary import DynamicScaling, LinearScaling, Llama3Scaling, rotary

ONE: Any = np.array([1, 2, 3, 4], np.float32).reshape(1, 1, 1, 4)


@pytest.mark.parametrize(
    ("position", "options", "expected"),
    [
        (1, {}, [-1.984111, 1.959901, 2.462378, 4.019800]),
        (1, {"interleaved": True}, [-1.142640, 1.922076, 2.959851, 4.029800]),
        (3, {"theta": 5e5}, [-1.413353, 1.983011, -2.828857, 4.008449]),
    ],
)
def test_rotary_positions(position, options, expected):
    y = rotary(ONE, jnp.array([[position]]), **options)
    np.testing.assert_allclose(y.ravel(), expected, atol=1e-6)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_products_depend_on_distances(interleaved):
    products = []
    for places in ((5, 2), (103, 100)):
        q, k = (
            rotary(x, jnp.array([[p]]), interleaved=interleaved)
            for x, p in zip((ONE, ONE[..., ::-1]), places, strict=True)
        )
        products.append(float((q * k).sum()))
    np.testing.assert_allclose(*products, rtol=1e-5)


def inverse_frequencies(kind, size, theta, length):
    """The rates in PyTorch, in float64, one pair after the other as the papers have them."""
    every = []
    for pair in range(size // 2):
        if kind == "dynamic":  # factor 3 from 16 positions: another theta
            base = theta * (3 * max(length, 16) / 16 - 2) ** (size / (size - 2))
            every.append(base ** (-2 * pair / size))
            continue
        rate = theta ** (-2 * pair / size)
        if kind == "linear":
            rate = rate / 5
        if kind == "llama3":  # factor 8, 1 to 4 turns within 32 positions
            wavelength = 2 * math.pi / rate
            if wavelength > 32 / 1:
                rate = rate / 8
            elif wavelength > 32 / 4:
                smooth = (32 / wavelength - 1) / (4 - 1)
                rate = (1 - smooth) * rate / 8 + smooth * rate
        every.append(rate)
    return torch.tensor(every, dtype=torch.float64)


SCALINGS = {
    "linear": LinearScaling(5.0),
    "dynamic": DynamicScaling(3.0, 16),
    "llama3": Llama3Scaling(8.0, 1.0, 4.0, 32),
}


@pytest.mark.parametrize("kind", SCALINGS)
@pytest.mark.parametrize("length", [9, 40])
def test_scaled_rates_are_those_of_pytorch(kind, length):
    x = np.random.default_rng(1).normal(size=(1, length, 2, 12)).astype(np.float32)
    rates = inverse_frequencies(kind, 12, 100.0, length)
    angles = torch.arange(length)[:, None] * torch.cat([rates, rates])  # as Llama's code
    first, second = torch.from_numpy(x).double().chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    expected = torch.from_numpy(x) * angles.cos()[:, None] + turned * angles.sin()[:, None]
    y = rotary(jnp.asarray(x), jnp.arange(length)[None], theta=100.0, scaling=SCALINGS[kind])
    np.testing.assert_allclose(y, expected, atol=2e-5)


def test_texts_of_a_batch_are_scaled_one_by_one():
    """A short text beside a long one, with padding, has the outputs that it has alone."""
    layer = Attention(2, causal=True, rotary_theta=100.0, rotary_scaling=DynamicScaling(3.0, 4))
    x: Any = np.random.default_rng(2).normal(size=(2, 9, 8)).astype(np.float32)
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    both = jax.jit(layer.apply)(variables, x, lengths=jnp.array([6, 9]))
    alone: Any = jax.jit(layer.apply)(variables, x[:1, :6])
    np.testing.assert_allclose(np.asarray(both)[:1, :6], alone, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LinearScaling(0.5),
        lambda: DynamicScaling(float("nan"), 4),
        lambda: DynamicScaling(2.0, 0),
        lambda: Llama3Scaling(low_turns=4.0),
    ],
)
def test_scalings_that_are_none(make):
    with pytest.raises(InputError):
        make()
