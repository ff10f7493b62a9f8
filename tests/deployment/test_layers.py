"""The hardware view of an integer network, worked by hand and against the traced program."""

import collections
import dataclasses

import jax
import numpy as np
import pytest

from nnlab.costs import count
from nnlab.costs.hardware import Numbers, table
from nnlab.deployment import reference, run
from nnlab.deployment.layers import network_layers


def test_layers_by_hand(small_network):
    layers = {layer.name: layer for layer in network_layers(small_network, (6, 5, 2))}
    first, near, agreeing = layers["first"], layers["near"], layers["agreeing"]
    terms = 6 * 5 * 5 * (3 * 3 * 2)
    assert first.operations.multiplications == first.operations.additions == {"int8": terms}
    assert first.weights == (Numbers(90, 720),)
    assert first.inputs == (Numbers(60, 480),) and first.outputs == (Numbers(150, 4800),)
    assert (first.kind, first.terms) == ("product", 18)

    assert near.operations.additions == {"int8": 2 * 3 * 5 * 6 * (3 * 3 * 5)}
    assert near.operations.multiplications == {}
    assert near.weights == (Numbers(270, 4 * 270),)  # of four bits

    terms = 3 * 5 * 7 * (3 * 3 * 6)
    assert agreeing.operations.bit_operations == {"bool": terms}
    assert agreeing.operations.additions == {"int8": terms}
    assert agreeing.weights == (Numbers(378, 378),)  # one bit a sign
    assert agreeing.accumulator == 7  # ±54

    assert layers["votes"].operations.multiplications == {"int32": 105}
    assert layers["total"].operations.additions == {"int32": 105 - 7}
    assert layers["total"].accumulator == 9  # 15 x 15 = 225
    assert layers["product"].operations.multiplications == {"int8": 28}  # of inputs up to 225
    rows = table(list(layers.values()))
    assert rows[-1]["multiplications"] == sum(row["multiplications"] for row in rows[:-1])


def test_no_operation_of_the_program_is_missing(small_network, few_images):
    """What the program does beyond the definitions: it pads words of six signs to 32, multiplies
    by the signs of thresholds, and may add up the taps of a convolution one by one."""
    total = collections.Counter()
    for layer in network_layers(small_network, few_images.shape[1:]):
        total.update(layer.operations.totals())
    traced = collections.Counter(count(run(small_network), few_images[:1]).totals())
    padded = 3 * 5 * 7 * 3 * 3 * (32 - 6)
    assert total["multiplications"] == traced["multiplications"] - 3 * 5 * 6
    assert total["additions"] == traced["additions"] - padded - 9 * 6 * 5 * 5
    assert total["bit_operations"] == traced["bit_operations"] - padded


def test_no_image_leaves_the_accumulators(small_network):
    """Images that quantise to the extremes, and random ones."""
    rng = np.random.default_rng(0)
    images = np.concatenate(
        [
            np.full((1, 6, 5, 2), 9.0),
            np.full((1, 6, 5, 2), -9.0),
            rng.choice([-9.0, 9.0], (20, 6, 5, 2)),
        ]
    ).astype(np.float32)
    values = reference(small_network, images)
    for layer in network_layers(small_network, (6, 5, 2)):
        if layer.accumulator:
            half = 2 ** (layer.accumulator - 1)
            assert -half <= values[layer.name].min() <= values[layer.name].max() < half


def test_operands_are_as_wide_as_they_can_be(small_network):
    """Inputs of up to 9 bits: 15 positions of 31 each; adder weights up to 7, shifted by 1."""

    def layers(**high):
        nodes = [
            dataclasses.replace(n, attributes=n.attributes | {"high": high[n.name]})
            if n.name in high
            else n
            for n in small_network.nodes
        ]
        network = dataclasses.replace(small_network, nodes=tuple(nodes))
        return {layer.name: layer for layer in network_layers(network, (6, 5, 2))}

    assert layers(votes=31)["product"].operations.multiplications == {"int9": 28}
    assert set(layers(carrier=255)["near"].operations.additions) == {"int8"}
    assert set(layers(carrier=15)["near"].operations.additions) == {"int4"}
    narrow, product = layers(carrier=15)["near"], layers(votes=31)["product"]
    rows = table([narrow, product])
    assert [row["assumed"] for row in rows[:2]] == ["int4", "int9"]
    # An upper bound each: the price of 8 bits, and of 32.
    assert rows[0]["arithmetic / nJ"] * 1000 == pytest.approx(2 * 90 * 45 * 0.03)
    assert rows[1]["arithmetic / nJ"] * 1000 == pytest.approx(28 * (3.1 + 0.1))


def test_images_of_bytes(small_network):
    layers = network_layers(small_network, (6, 5, 2), dtype=jax.numpy.uint8)
    assert layers[0].inputs == (Numbers(60, 480),)
