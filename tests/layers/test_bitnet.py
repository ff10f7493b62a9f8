"""Layers of BitNet: the norm inside, what is exported, what is stored."""

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.arithmetics import BITNET, BITNET_B1, bitnet
from nnlab.costs import stored_bytes
from nnlab.layers import BitNetDense


def test_the_norm_comes_first_and_can_be_left_to_the_model():
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    variables = jax.jit(BitNetDense(5).init)(jax.random.key(0), x)
    scale = np.array([1, 2, 0.5, 1], np.float32)
    params = variables["params"] | {"input_norm": {"scale": scale}}
    normed = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6) * scale
    bare = bitnet(norm=False).dense(5)
    expected = jax.jit(bare.apply)({"params": {"kernel": params["kernel"]}}, normed)
    y = jax.jit(BitNetDense(5).apply)({"params": params}, x)
    np.testing.assert_allclose(y, expected, rtol=0, atol=2 * np.abs(expected).max() / 127)
    assert bitnet(norm_epsilon=1e-8).conv(2, (1, 1)).norm_epsilon == 1e-8
    assert not BITNET.needs_norm and bitnet(norm=False).needs_norm


def test_what_is_stored():
    x = jnp.ones((2, 10))
    for arithmetic, bits in ((BITNET, 2), (BITNET_B1, 1)):
        layer = arithmetic.dense(4)
        variables = jax.eval_shape(layer.init, jax.random.key(0), x)
        norm, scale = 10 * 4, 4
        assert stored_bytes(layer.apply, variables, x) == 10 * 4 * bits // 8 + scale + norm
        codes, scale = jax.eval_shape(layer.export, variables)
        assert (codes.shape, codes.dtype) == ((10, 4), jnp.int8)
        assert (scale.shape, scale.dtype) == ((), jnp.float32)
