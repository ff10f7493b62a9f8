"""The costs of an inference, against a network small enough to count by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from nnlab.arithmetics import (
    ADDER,
    BINARY,
    FLOAT,
    Arithmetic,
)
from nnlab.costs import inference_costs


class OneLayer(nn.Module):
    arithmetic: Arithmetic

    @nn.compact
    def __call__(self, x):
        return self.arithmetic.conv(4, (3, 3))(x)


# 5 · 5 positions, 3 · 3 · 2 inputs, 4 features: 1,800 terms; 72 weights. Horowitz's picojoules:
# 3.7 and 0.9 a float32 product and sum, 0.03 an int8 sum, an eighth of it an XNOR.
@pytest.mark.parametrize(
    ("arithmetic", "expected"),
    [
        (FLOAT, (1800, 1800, 0, 288, 1800 * 4.6e-3)),
        (ADDER, (0, 3600, 0, 288, 3600 * 0.9e-3)),
        # the quantisers of 50 pixels and 72 weights compare, which is not priced
        (BINARY, (0, 1800, 1800, 9, 1800 * 0.03e-3 * 1.125)),
    ],
)
def test_costs_of_one_layer(arithmetic, expected):
    model, image = OneLayer(arithmetic), jnp.zeros((1, 5, 5, 2))
    costs = inference_costs(model.apply, model.init(jax.random.key(0), image), image)
    assert tuple(costs.values()) == pytest.approx(expected)
    assert list(costs)[-1] == "energy / nJ"
