"""Layers of BiT: how offsets and scales start, and what is stored."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.arithmetics import BIT
from nnlab.costs import stored_bytes
from nnlab.layers import BitAttention, BitDense


def test_scales_start_by_the_first_inputs():
    x = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    for signed, factor in ((True, 2), (False, 4)):
        params: Any = jax.jit(BitDense(2, signed=signed).init)(jax.random.key(0), x)["params"]
        assert params["input_scale"] == pytest.approx(factor * np.abs(x).mean(), rel=1e-5)
        assert params["input_bias"].shape == (4,) and not params["input_bias"].any()
    heads = x[:, :, None]
    params = jax.jit(BitAttention().init)(jax.random.key(0), heads, heads, 2 * heads)["params"]
    mean = np.abs(x).mean()
    expected = {"query": 2 * mean, "key": 2 * mean, "probability": 4 / 5, "value": 4 * mean}
    found = {name.removesuffix("_scale"): scale for name, scale in params.items()}
    assert {name: float(scale) for name, scale in found.items()} == pytest.approx(expected)


def test_what_is_stored():
    layer, x = BIT.dense(4), jnp.ones((2, 10))
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    offsets, scales = 10 * 4, 2 * 4
    assert stored_bytes(layer.apply, variables, x) == 10 * 4 // 8 + offsets + scales
