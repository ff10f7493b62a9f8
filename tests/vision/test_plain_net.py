"""Plain networks: He et al.'s sizes, shortcuts that cost nothing, a step in two arithmetics."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.arithmetics import ADDER, FLOAT
from nnlab.costs import count
from nnlab.errors import InputError
from nnlab.models import PlainNet
from nnlab.ops.convolution import conv

IMAGE = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)


def variables(network, images=IMAGE) -> Any:
    return jax.eval_shape(network.init, jax.random.key(0), images)


@pytest.mark.slow
def test_multiply_adds():
    # As published for ResNet-20, whose 19 convolutions and classifier these are.
    network = PlainNet(6, arithmetic=ADDER, first=ADDER, classifier=ADDER)
    counts = [count(n.apply, variables(n), IMAGE) for n in (PlainNet(6), network)]
    products, distances = (c.multiplications["float32"] for c in counts)
    assert products - distances == 40_551_040


def test_parameters_are_those_of_a_resnet_without_projections():
    params = variables(PlainNet(10, shortcuts=True))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 464_154  # of 32 layers


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", [FLOAT, ADDER])
@pytest.mark.parametrize("shortcuts", [False, True])
def test_a_step_moves_every_parameter(arithmetic, shortcuts, assert_a_step_moves_everything):
    network = PlainNet(2, (4, 6, 8), 5, arithmetic, shortcuts=shortcuts)
    assert_a_step_moves_everything(network, (4, 8, 8, 3))


def test_a_convolution_of_no_effect_leaves_what_went_in(drawn, quick_jit):
    network = PlainNet(2, (4, 4, 4), 5, shortcuts=True)
    images: Any = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
    params: Any = drawn(variables(network, images))
    for stage, layer in ((1, 0), (1, 1), (2, 1), (3, 1)):
        bn = params["params"][f"stage{stage}_{layer}_bn"]
        bn["scale"] = bn["bias"] = params["batch_stats"][f"stage{stage}_{layer}_bn"]["mean"] * 0
    apply = quick_jit(functools.partial(network.apply, mutable=["intermediates"]))
    seen: Any = apply(params, images)[1]
    sown = seen["intermediates"]
    assert [sown[f"stage{i}"][0].shape for i in (1, 2, 3)] == [(2, s, s, 4) for s in (8, 4, 2)]
    assert sown["features"][0].shape == (2, 4)
    norm, stats = params["params"]["bn"], params["batch_stats"]["bn"]
    stem = conv(images, params["params"]["conv"]["kernel"]) - stats["mean"]
    stem = nn.relu(stem / np.sqrt(stats["var"] + 1e-5) * norm["scale"] + norm["bias"])
    np.testing.assert_allclose(sown["stage1"][0], stem, rtol=1e-5, atol=1e-6)


def test_no_layers():
    with pytest.raises(InputError):
        variables(PlainNet(0))
