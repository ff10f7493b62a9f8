"""Adaptive pooling against PyTorch's."""

import jax
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.errors import InputError
from nnlab.ops.adaptive_pooling import adaptive_avg_pool, adaptive_max_pool

two = st.tuples(*[st.integers(1, 9)] * 2)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(two, two, st.integers(0, 99))
def test_equals_pytorch(pixels, size, seed):
    x = np.random.default_rng(seed).normal(size=(2, *pixels, 3)).astype(np.float32)
    images = torch.tensor(x.transpose(0, 3, 1, 2))
    for ours, theirs in (
        (adaptive_avg_pool, torch.nn.functional.adaptive_avg_pool2d),
        (adaptive_max_pool, torch.nn.functional.adaptive_max_pool2d),
    ):
        expected = theirs(images, size).numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(jax.jit(ours, static_argnums=1)(x, size), expected, atol=1e-6)


def test_errors():
    with pytest.raises(InputError, match=r"^adaptive_avg_pool takes x .*, not \(4, 4, 1\)\."):
        adaptive_avg_pool(np.zeros((4, 4, 1)), 2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"^size must be .*, not 0"):
        adaptive_max_pool(np.zeros((1, 4, 4, 1)), 0)  # pyright: ignore[reportArgumentType]
