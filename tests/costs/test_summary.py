"""Models as lists of modules, by hand and against the whole traced program."""

import collections

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from nnlab.arithmetics import (
    ADDER,
    BINARY,
    FLOAT,
    SHIFT_PS,
    XNOR,
    Arithmetic,
)
from nnlab.costs import count, energy, stored_bytes
from nnlab.costs.summary import folded, inference_costs, summarize
from nnlab.layers.grouped import GroupedConv
from nnlab.models import CifarResNet, LeNet5


def of(model, *shape):
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return summarize(model, variables, images), variables, images


class Head(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x)


class Block(nn.Module):
    """A module with parameters of its own, a head that inference leaves out, and a shared layer."""

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (5,))
        x = GroupedConv(XNOR.conv, 2, 6, (3, 3), name="grouped")(x)
        dense = nn.Dense(6, name="shared")
        x = dense(dense(x))
        if self.is_initializing():
            Head(name="head")(x)
        return x * scale.sum()


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=True)(Block(name="block")(x)), x


def test_lines_by_hand():
    summary, variables, images = of(Model(), 1, 8, 8, 4)
    lines = {"/".join(line.path): line for line in summary.lines}
    assert list(lines) == [
        *("", "block", "block/grouped", "block/shared", "BatchNorm_0"),
        *("block/head", "between layers"),
    ]
    assert [line.op for line in summary.lines] == [
        *("Model", "Block", "GroupedConv", "Dense", "Dense", "BatchNorm", "-", "-"),
    ]
    assert lines[""].shape == ()  # of two outputs
    assert lines["block"].shape == lines["block/grouped"].shape == (1, 8, 8, 6)
    assert lines["block"].parameters == {32: 5}
    assert lines["block/grouped"].parameters == {1: 2 * 3 * 3 * 2 * 3}
    assert lines["block/head"].parameters == {32: 6 * 3 + 3}
    first, second = (line for line in summary.lines if line.path == ("block", "shared"))
    assert (first.parameters, second.parameters) == ({32: 6 * 6 + 6}, {})  # counted once
    assert first.operations == second.operations
    assert first.operations.multiplications == {"float32": 64 * 6 * 6}
    assert first.output_bytes == 4 * 64 * 6
    assert summary.statistics == 12
    assert summary.total.parameters == {32: 5 + 42 + 12 + 21, 1: 108}
    assert summary.stored_bytes == stored_bytes(Model().apply, variables, images)


def test_lines_add_up_to_the_whole_program():
    model = CifarResNet(8, arithmetic=SHIFT_PS)
    summary, variables, images = of(model, 2, 8, 8, 3)
    whole = count(model.apply, variables, images)
    assert summary.total.operations == whole
    assert summary.total.picojoules == energy(whole)
    number = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert sum(summary.total.parameters.values()) == number
    for levels in (1, 2, 3):
        total = collections.Counter()
        for line in folded(summary.lines, levels):
            total.update(line.operations.additions)
        assert total == whole.additions


def test_lenet_as_published():
    summary, _, _ = of(LeNet5(), 1, 32, 32, 1)
    assert summary.total.parameters == {32: 61_942}
    layers = [line for line in summary.lines if line.op in ("Conv", "Dense")]
    assert sum(line.operations.multiplications["float32"] for line in layers) == 416_520


def test_folded_lines_have_what_is_inside():
    summary, _, _ = of(CifarResNet(8, arithmetic=ADDER), 1, 8, 8, 3)
    lines = folded(summary.lines, 1)
    assert [line.path for line in lines if line.path] == [
        *(("Conv_0",), ("BatchNorm_0",), ("BasicBlock_0",), ("BasicBlock_1",), ("BasicBlock_2",)),
        *(("Dense_0",), ("BatchNorm_1",), ("between layers",)),
    ]
    block = lines[3]
    assert (block.op, block.shape) == ("BasicBlock", (1, 8, 8, 16))
    assert block.parameters == {32: 2 * (9 * 16 * 16 + 32)}
    # Two convolutions of two additions a term; two normalisations of two a number, one a channel.
    assert block.operations.additions == {"float32": 2 * (2 * 64 * 16 * 9 * 16 + 2 * 64 * 16 + 16)}
    assert block.output_bytes == 4 * 4 * 64 * 16
    assert folded(summary.lines, 2) == list(summary.lines)


def test_energy_without_a_price_is_none():
    summary, _, _ = of(LeNet5(dtype=jnp.bfloat16), 1, 32, 32, 1)
    assert summary.total.picojoules is None
    lines = {line.path: line for line in summary.lines}
    assert lines["Conv_0",].picojoules is None
    normalisation = lines["BatchNorm_0",].picojoules  # in float32
    assert normalisation is not None and normalisation > 0


def test_a_model_that_is_one_layer():
    summary, _, _ = of(FLOAT.dense(3), 2, 5)
    (layer, between) = summary.lines
    assert (layer.path, layer.op, layer.shape) == ((), "Dense", (2, 3))
    assert layer.parameters == {32: 15}
    assert layer.operations.multiplications == {"float32": 30}
    assert between.operations.totals()["multiplications"] == 0


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
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    costs = inference_costs(model.apply, variables, image)
    assert tuple(costs.values()) == pytest.approx(expected)
    assert list(costs)[-1] == "energy / nJ"
