"""A bias is one parameter a feature, and its gradient is the sum of what comes back."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from nnlab.layers.bias import add_bias


class Biased(nn.Module):
    features: int = 3
    param_dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, y):
        return add_bias(self, y)


LAYER: Any = Biased()


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 4, 4, 3)])
def test_value_and_gradient(shape):
    zeros = LAYER.init(jax.random.key(0), jnp.ones(shape))
    assert zeros["params"]["bias"].tolist() == [0, 0, 0]
    variables = {"params": {"bias": jnp.array([1.0, 2.0, -4.0])}}
    y = LAYER.apply(variables, jnp.ones(shape))
    assert (y == jnp.broadcast_to(jnp.array([2.0, 3.0, -3.0]), shape)).all()
    grads = jax.grad(lambda v: LAYER.apply(v, jnp.ones(shape)).sum())(variables)
    assert (grads["params"]["bias"] == y.size / 3).all()


def test_the_output_decides_the_dtype():
    y = jnp.ones((2, 3), jnp.bfloat16)
    variables = LAYER.init(jax.random.key(0), y)
    assert variables["params"]["bias"].dtype == jnp.float32
    assert LAYER.apply(variables, y).dtype == jnp.bfloat16
    narrow: Any = Biased(param_dtype=jnp.dtype("bfloat16"))
    assert narrow.init(jax.random.key(0), y)["params"]["bias"].dtype == jnp.bfloat16
