"""Integer networks against a reference in NumPy's int64."""

import jax
import numpy as np
import pytest

from nnlab.deployment import (
    IntegerNetwork,
    Node,
    accumulator_bounds,
    reference,
    run,
    run_nodes,
)
from nnlab.errors import InputError

SIDES = [[1, 1], [1, 1]]


def every_operation(seed=0):
    """A network of all operations, random as far as bounds allow, with 5 channels and 40 signs."""
    rng = np.random.default_rng(seed)
    arrays, nodes = {}, []

    def node(name, op, inputs, attributes, **own):
        named = {role: f"{name}.{role}" for role in own}
        arrays.update((named[role], array) for role, array in own.items())
        nodes.append(Node(name, op, tuple(inputs.split()), attributes, named))

    def requantize(name, x, channels, low, high, spread):
        shift = rng.integers(0, 9, channels, np.int32)
        node(
            name,
            "requantize",
            x,
            {"low": low, "high": high},
            center=rng.integers(-spread, spread, channels, np.int32),
            multiplier=rng.integers(-300, 300, channels, np.int32),
            shift=shift,
            offset=rng.integers(-5, 5, channels, np.int32),
        )

    def conv(name, op, x, kernel, strides=(1, 1), padding=((1, 1), (1, 1)), **attributes):
        windows = {"strides": list(strides), "padding": [list(pair) for pair in padding]}
        node(name, op, x, windows | attributes, kernel=kernel)

    node("pixels", "quantize", "images", {"scale": 40.0, "low": -127, "high": 127})
    conv("first", "conv", "pixels", rng.integers(-127, 128, (3, 3, 2, 5), np.int8))
    requantize("carrier", "first", 5, -32768, 32767, 1000)
    requantize("narrow", "carrier", 1, 0, 15, 100)
    requantize("wide", "carrier", 5, 0, 255, 100)
    kernel = np.random.default_rng(seed).integers(-3, 4, (2, 3, 1, 5), np.int8)
    conv("of_each", "conv", "wide", kernel, padding=((1, 0), (1, 1)), groups=5)
    numbers = dict(center=0, multiplier=1, shift=2, offset=40)
    constants = {role: np.array([number], np.int32) for role, number in numbers.items()}
    node("mixed", "requantize", "of_each", {"low": 0, "high": 255}, **constants)
    values = np.random.default_rng(seed).integers(0, 256, 300, np.uint8)
    node("looked_up", "table", "mixed", {"low": -20}, values=values)
    four_bits = {"shift": 1, "bits": 3, "padding_value": 0}
    conv("few", "adder_conv", "narrow", rng.integers(0, 8, (3, 3, 5, 2), np.uint8), **four_bits)
    eight_bits = {"shift": 0, "bits": 8, "padding_value": 9}
    conv(
        "many",
        "adder_conv",
        "looked_up",
        rng.integers(0, 256, (3, 3, 5, 3), np.uint8),
        **eight_bits,
    )
    node("groups", "concatenate", "few many", {}, order=np.array([3, 0, 4, 1, 2], np.int32))
    requantize("again", "groups", 5, -32768, 32767, 3000)
    node("block", "add", "carrier again", {"low": -100, "high": 32767})
    node("wider", "pad", "block", {"padding": [[0, 1], [2, 0], [0, 0]]})
    moved = {"window": [3, 2], "strides": [1, 2]}
    apart = {"padding": [[1, 0], [0, 1], [0, 0]], "between": [1, 2]}
    node("apart", "pad", "wider", apart)
    shrunk = {"window": [2, 3], "strides": [2, 3], "padding": [[0, 0], [0, 1]]}
    node("together", "sum_pool", "apart", shrunk)
    node("near_sums", "sum_pool", "together", moved | {"padding": [[1, 0], [-1, 1]]})
    node("largest", "max_pool", "near_sums", moved | {"padding": [[2, 1], [0, 1]]})
    node("cut", "concatenate", "largest", {}, order=np.array([4, 1, 1, 0], np.int32))
    node("smaller", "max_pool", "block", {"window": [2, 2]})
    signs = {
        "sign": np.array([1, -1, 1, -1, 1], np.int8),
        "threshold": rng.integers(-99, 99, 5, np.int32),
    }
    node("bits", "pack_signs", "smaller", {}, **signs)
    words = rng.integers(0, 32, (3, 3, 1, 40), np.uint32)
    conv("agreeing", "binary_conv", "bits", words, (2, 1), ((1, 0), (0, 1)), channels=5)
    zeros = {"sign": np.ones(40, np.int8), "threshold": np.zeros(40, np.int32)}
    node("more", "pack_signs", "agreeing", {}, **zeros)
    node("more_words", "or_pool", "more", moved | {"padding": [[2, 0], [1, 0]]})
    node("less", "or_pool", "more", {"window": [1, 2]})
    dense = rng.integers(0, 2**8, (2, 7), np.uint32)
    node("votes", "binary_dense", "less", {"channels": 40}, kernel=dense)
    requantize("vote_bytes", "votes", 7, 0, 255, 20)
    node("total", "sum", "vote_bytes", {"positions": 2})
    requantize("total_bytes", "total", 7, 0, 255, 20)
    kernel = rng.integers(0, 128, (7, 6), np.uint8)
    node("near", "adder_dense", "total_bytes", {"shift": 1, "bits": 7}, kernel=kernel)
    node("product", "dense", "near", {}, kernel=rng.integers(-127, 128, (6, 4), np.int8))
    node("flat", "flatten", "product", {})
    node("logits", "dequantize", "flat", {"step": 0.37})
    return IntegerNetwork(tuple(nodes), arrays)


def images(seed=0, n=3):
    return np.random.default_rng(seed).normal(size=(n, 9, 6, 2)).astype(np.float32)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_node_equals_the_reference(seed):
    network, x = every_operation(seed), images(seed)
    expected = reference(network, x)
    values = jax.jit(run_nodes(network))(x)
    bounds = accumulator_bounds(network)
    for node in network.nodes:
        value = np.asarray(values[node.name])
        np.testing.assert_array_equal(value, expected[node.name], err_msg=node.name)
        assert len(np.unique(value)) > 1, f"{node.name} tests nothing"
        if node.op not in ("pack_signs", "or_pool", "dequantize"):
            assert bounds[node.name].low <= value.min() <= value.max() <= bounds[node.name].high
    logits = run(network)(x)
    assert logits.dtype == np.float32 and logits.shape == (3, 4)
    np.testing.assert_array_equal(logits, expected["logits"])


def test_images_of_another_network_are_refused():
    kernel = np.ones((3, 3, 1, 2), np.int8)
    pixels = Node("pixels", "quantize", ("images",), {"scale": 1.0, "low": 0, "high": 9}, {})
    conv = Node("conv", "conv", ("pixels",), {"strides": [1, 1], "padding": SIDES}, {"kernel": "w"})
    evaluate = run(IntegerNetwork((pixels, conv), {"w": kernel}))
    with pytest.raises(InputError, match="conv gets 2 channels, expected 1"):  # not two groups
        evaluate(np.ones((1, 4, 4, 2), np.float32))
    with pytest.raises(InputError, match="no examples"):
        evaluate(np.ones((0, 4, 4, 1), np.float32))
