"""ResNets for CIFAR: their sizes as of AdderNet's code, and their blocks."""

import jax
import jax.numpy as jnp
import pytest

from nnlab.analysis import count
from nnlab.arithmetics import ADDER, BINARY, FLOAT
from nnlab.models import CifarResNet, resnet20, resnet32

IMAGE = jnp.ones((1, 32, 32, 3))


def variables(network):
    return jax.eval_shape(network.init, jax.random.key(0), IMAGE)


@pytest.mark.parametrize(
    ("model", "classes", "parameters"),
    [
        (resnet20, 10, 272_484),
        (resnet20, 100, 278_424),
        (resnet32, 10, 466_916),
        (resnet32, 100, 472_856),
    ],
)
def test_parameters(model, classes, parameters):
    for arithmetic in (FLOAT, ADDER, BINARY):
        leaves = jax.tree.leaves(variables(model(classes, arithmetic=arithmetic))["params"])
        assert sum(leaf.size for leaf in leaves) == parameters


def test_multiply_adds():
    networks = resnet20(), resnet20(arithmetic=ADDER, first=ADDER, classifier=ADDER)
    products, distances = (
        count(network.apply, variables(network), IMAGE).multiplications["float32"]
        for network in networks
    )
    # Without projections, as published; with two: 16·16 outputs of 16·32 and 8·8 of 32·64 terms.
    assert products - distances == 40_551_040 + 16 * 16 * 16 * 32 + 8 * 8 * 32 * 64 == 40_813_184


def test_shortcuts_are_projected_where_the_shape_changes_only():
    params = variables(resnet20(arithmetic=ADDER))["params"]
    assert sum(name.startswith("BasicBlock") for name in params) == 9
    projections = {
        name: block["AdderConv_2"]["adder_kernel"].shape
        for name, block in params.items()
        if "AdderConv_2" in block
    }
    assert projections == {"BasicBlock_3": (1, 1, 16, 32), "BasicBlock_6": (1, 1, 32, 64)}


@pytest.mark.parametrize("depth", [2, 7, 21, 0])
def test_a_depth_that_makes_no_network_is_named(depth):
    words = rf"^depth must be 6 n \+ 2 with n at least 1, not {depth}\."
    with pytest.raises(ValueError, match=words):
        variables(CifarResNet(depth))
