"""Layers found in models."""

import collections
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from nnlab.arithmetics import (
    ADDER,
    BINARY,
    FLOAT,
    of_product,
)
from nnlab.costs import Counts, count, stored_bytes
from nnlab.costs.hardware import Numbers
from nnlab.costs.modules import model_layers, module_calls
from nnlab.layers.grouped import GroupedConv
from nnlab.models import CifarResNet, LeNet5, RecurrentNet
from nnlab.ops.products import shift_conv, signed_conv


def layers_of(model, *shape):
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    return model_layers(model, variables, image), variables, image


def test_layers_add_up_to_the_whole_program():
    model = CifarResNet(8, arithmetic=BINARY)
    layers, variables, image = layers_of(model, 16, 16, 3)
    whole = count(model.apply, variables, image)
    for index, kind in enumerate(whole._fields):
        total = collections.Counter()
        for layer in layers:
            total.update(layer.operations[index])
        assert total == whole[index], kind
    stored = sum(a.bytes for layer in layers for a in layer.weights)
    assert stored == stored_bytes(model.apply, variables, image)
    # Shortcuts are added and activations taken between the layers.
    assert layers[-1].operations.additions["float32"] > 0
    assert layers[-1].operations.comparisons["float32"] > 0


def test_lenet_by_hand():
    layers, _, _ = layers_of(LeNet5(arithmetic=ADDER), 32, 32, 1)
    names = [layer.name for layer in layers]
    assert names[:4] == ["Conv_0", "BatchNorm_0", "AdderConv_0", "BatchNorm_1"]
    assert names[-2:] == ["BatchNorm_4", "between layers"]
    adder = layers[2]
    assert adder.op == "AdderConv"
    assert adder.operations.additions == {"float32": 2 * 10 * 10 * 16 * (5 * 5 * 6)}
    assert adder.weights == (Numbers(2400, 2400 * 32),)
    assert adder.inputs == (Numbers(14 * 14 * 6, 14 * 14 * 6 * 32),)
    assert adder.outputs == (Numbers(1600, 1600 * 32),)
    assert (adder.kind, adder.terms, adder.accumulator) == ("adder", 150, None)


def test_kinds_of_sums():
    kinds = {
        "product": FLOAT,
        "adder": ADDER,
        "binary": BINARY,
        "signed": of_product(signed_conv),
        None: of_product(shift_conv),  # of no width that the bits of its operands give
    }
    for kind, arithmetic in kinds.items():
        layers, _, _ = layers_of(arithmetic.conv(4, (3, 3), padding="VALID"), 6, 6, 5)
        assert (layers[0].kind, layers[0].terms) == (kind, 45), kind
        assert len(layers) == 2


def test_binary_weights_are_stored_in_one_bit():
    layers, _, _ = layers_of(BINARY.conv(4, (3, 3)), 6, 6, 5)
    assert layers[0].weights == (Numbers(180, 23 * 8),)  # 180 bits are 23 bytes


def test_nested_and_repeated_modules():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            dense = nn.Dense(3, name="shared")
            return dense(dense(nn.Sequential([nn.Dense(3), nn.relu])(x)))

    layers, _, _ = layers_of(Twice(), 3)
    assert [layer.name for layer in layers] == [
        "Dense_0",
        "shared",
        "shared",
        "between layers",
    ]


@pytest.mark.parametrize(
    ("arithmetic", "kind", "bits"),
    [(FLOAT, "product", 32), (ADDER, "adder", 32), (BINARY, "binary", 1)],
)
def test_a_grouped_convolution_is_one_layer(arithmetic, kind, bits):
    model = GroupedConv(arithmetic.conv, 2, 6, (3, 3), padding="VALID")
    (layer, between), variables, image = layers_of(nn.Sequential([model, nn.relu]), 6, 6, 4)
    assert (layer.name, layer.op) == ("layers_0", "GroupedConv")
    assert [a.size for a in layer.weights] == [2 * 3 * 3 * 2 * 3]
    assert sum(a.bits for a in layer.weights) == math.ceil(108 * bits / 8) * 8
    assert layer.outputs == (Numbers(4 * 4 * 6, 4 * 4 * 6 * 32),)
    # 18 terms, the 3 x 3 window of 2 of the 4 channels.
    assert (layer.kind, layer.terms) == (kind, 18)
    whole = count(nn.Sequential([model]).apply, variables, image)
    assert layer.operations == whole
    assert between.operations.totals() == {**Counts(*[{}] * 6).totals(), "comparisons": 96}


def test_a_module_beside_mapped_ones_is_a_layer_of_its_own():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = GroupedConv(FLOAT.conv, 2, 4, 1)(x)
            x = nn.Dropout(0.5, deterministic=True)(x)
            return nn.remat(nn.Dense)(3, name="dense")(x)

    layers, _, _ = layers_of(Model(), 2, 2, 4)
    names = ["GroupedConv_0", "Dropout_0", "dense", "between layers"]
    assert [layer.name for layer in layers] == names
    assert [sum(layer.operations.totals().values()) for layer in layers] == [64, 0, 108, 0]


def test_a_layer_in_a_loop_has_the_operations_of_all_steps():
    model = RecurrentNet(3, 5, 1, arithmetic=ADDER)
    layers, variables, inputs = layers_of(model, 7, 2)  # seven steps of two numbers
    names = [layer.name for layer in layers]
    assert names.count("cell1/input") == names.count("cell1/recurrent") == 1
    found = {layer.name: layer for layer in layers}
    of_inputs, of_state = found["cell1/input"], found["cell1/recurrent"]
    for layer, terms in ((of_inputs, 2), (of_state, 5)):
        assert (layer.kind, layer.terms) == ("adder", terms)
        assert layer.operations.additions == {"float32": 2 * 7 * 20 * terms}
        assert layer.weights == (Numbers(20 * terms, 20 * terms * 32),)  # read once
        assert layer.inputs == (Numbers(7 * terms, 7 * terms * 32),)
        assert layer.outputs == (Numbers(7 * 20, 7 * 20 * 32),)
    # The gates are between the layers: three sigmoids and two tanh of five units a step.
    assert layers[-1].operations.other == {"float32": 7 * 5 * 5}
    total = collections.Counter()
    for layer in layers:
        total.update(layer.operations.additions)
    assert total == count(model.apply, variables, inputs).additions


def test_calls_come_in_the_order_in_which_they_start():
    class Inner(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x, nn.Dense(5)(x)

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(Inner()(x)[1])

    image = jax.ShapeDtypeStruct((3, 4), jnp.float32)
    variables = jax.eval_shape(Outer().init, jax.random.key(0), image)
    calls = module_calls(Outer(), variables, image)
    assert [call.path for call in calls] == [(), ("Inner_0",), ("Inner_0", "Dense_0"), ("Dense_0",)]
    assert [call.is_layer for call in calls] == [False, False, True, True]
    assert [jax.tree.map(jnp.shape, call.output) for call in calls] == [
        (3, 2),
        ((3, 4), (3, 5)),
        (3, 5),
        (3, 2),
    ]
