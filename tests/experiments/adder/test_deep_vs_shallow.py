"""Networks of equal size: the script's formula against the networks themselves."""

import jax
import jax.numpy as jnp
import pytest

from nnlab.arithmetics import ADDER, FLOAT
from nnlab.models import PlainNet

SCRIPT = "adder/deep_vs_shallow"


@pytest.mark.parametrize(("layers", "channels"), [(1, 3), (4, 1), (8, 3)])
def test_every_depth_has_as_many_parameters(script, layers, channels, marked):
    widths = script.widths_of(40_000, layers, channels, 10)
    for arithmetic in (FLOAT, ADDER) if layers == 1 else (marked("kernel"),):
        network = PlainNet(layers, widths, 10, arithmetic)
        image = jax.ShapeDtypeStruct((1, 8, 8, channels), jnp.float32)
        params = jax.eval_shape(network.init, jax.random.key(0), image)["params"]
        parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
        assert parameters == script.size(layers, widths, channels, 10)
        assert abs(parameters - 40_000) < 400
