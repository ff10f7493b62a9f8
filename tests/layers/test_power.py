"""The power activation's exponent."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.arithmetics import ADDER_SR
from nnlab.layers import PowerActivation
from nnlab.models import SmallCNN


def test_it_starts_as_nothing_and_has_one_exponent():
    layer: Any = PowerActivation()
    y = jnp.array([-2.0, 0.0, 3.0])
    variables = layer.init(jax.random.key(0), y)
    assert jax.tree.map(jnp.shape, variables) == {"params": {"alpha": ()}}
    np.testing.assert_array_equal(layer.apply(variables, y), y)
    squared = layer.apply({"params": {"alpha": jnp.array(2.0)}}, y.astype(jnp.bfloat16))
    assert squared.dtype == jnp.bfloat16 and squared.tolist() == [-4, 0, 9]


def test_a_network_of_it_has_an_exponent_for_each_activation():
    model = SmallCNN(arithmetic=ADDER_SR)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 8, 8, 1)))["params"]
    assert sum("alpha" in layer for layer in params.values()) == 3
