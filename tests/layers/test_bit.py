"""Layers of BiT: how offsets and scales start, and what is stored."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.arithmetics import BIT
from nnlab.costs import stored_bytes
from nnlab.layers import BitAttention, BitDense, start_scales


def test_scales_start_as_of_normal_inputs_and_by_the_first_inputs():
    x = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    normal = np.random.default_rng(1).normal(size=100_000)
    for signed, factor in ((True, 2), (False, 4)):
        layer = BitDense(2, signed=signed)
        variables: Any = jax.jit(layer.init)(jax.random.key(0), x)
        first = factor * np.abs(normal if signed else np.maximum(normal, 0)).mean()
        assert variables["params"]["input_scale"] == pytest.approx(first, rel=0.02)
        assert not variables["params"]["input_bias"].any()
        started = jax.jit(functools.partial(start_scales, layer))(variables, x)
        scale = started["params"].pop("input_scale")
        assert scale == pytest.approx(factor * np.abs(x).mean(), rel=1e-5)
        chex.assert_trees_all_equal(started["params"], without(variables["params"]))


def without(params):
    return {name: leaf for name, leaf in params.items() if name != "input_scale"}


def test_scales_of_an_attention():
    x = np.random.default_rng(0).normal(size=(3, 5, 2, 4)).astype(np.float32)
    attention, mean = BitAttention(), np.abs(x).mean()
    variables: Any = jax.jit(attention.init)(jax.random.key(0), x, x, 2 * x)
    params = jax.jit(functools.partial(start_scales, attention))(variables, x, x, 2 * x)["params"]
    expected = {"query": 2 * mean, "key": 2 * mean, "probability": 4 / 5, "value": 4 * mean}
    found = {name.removesuffix("_scale"): float(scale) for name, scale in params.items()}
    assert found == pytest.approx(expected)
    assert variables["params"]["probability_scale"] == pytest.approx(4 / 5)


def test_what_is_stored():
    layer, x = BIT.dense(4), jnp.ones((2, 10))
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    offsets, scales = 10 * 4, 2 * 4
    assert stored_bytes(layer.apply, variables, x) == 10 * 4 // 8 + offsets + scales
