"""A small integer network for what is done with such networks."""

import numpy as np
import pytest

from nnlab.deployment import IntegerNetwork, Node

SIDES = [[1, 1], [1, 1]]


@pytest.fixture(scope="session")
def small_network():
    """Convolution, adder, binary and dense layers, of images [n, 6, 5, 2] to 4 logits."""
    rng = np.random.default_rng(0)
    arrays, nodes = {}, []

    def node(name, op, inputs, attributes, **own):
        arrays.update({f"{name}.{role}": array for role, array in own.items()})
        named = {role: f"{name}.{role}" for role in own}
        nodes.append(Node(name, op, tuple(inputs.split()), attributes, named))

    def requantize(name, x, channels, center, high):
        node(
            name,
            "requantize",
            x,
            {"low": 0, "high": high},
            center=np.full(channels, center, np.int32),
            multiplier=rng.integers(100, 200, channels, np.int32),
            shift=rng.integers(9, 12, channels, np.int32),
            offset=rng.integers(0, 9, channels, np.int32),
        )

    windows = {"strides": [1, 1], "padding": SIDES}
    node("pixels", "quantize", "images", {"scale": 40.0, "low": -127, "high": 127})
    kernel = rng.integers(-127, 128, (3, 3, 2, 5), np.int8)
    node("first", "conv", "pixels", windows, kernel=kernel)
    requantize("carrier", "first", 5, -9000, 255)
    kernel = rng.integers(0, 8, (3, 3, 5, 6), np.uint8)
    adder = {"strides": [2, 1], "padding": SIDES, "shift": 1, "bits": 4, "padding_value": 0}
    node("near", "adder_conv", "carrier", adder, kernel=kernel)
    sign = rng.choice(np.array([-1, 1], np.int8), 6)
    threshold = np.full(6, -7000, np.int32) * sign
    node("signs", "pack_signs", "near", {}, sign=sign, threshold=threshold)
    words = rng.integers(0, 64, (3, 3, 1, 7), np.uint32)
    node("agreeing", "binary_conv", "signs", windows | {"channels": 6}, kernel=words)
    requantize("votes", "agreeing", 7, -30, 15)
    node("total", "sum", "votes", {"positions": 15})
    node("product", "dense", "total", {}, kernel=rng.integers(-127, 128, (7, 4), np.int8))
    node("logits", "dequantize", "product", {"step": 0.37})
    return IntegerNetwork(tuple(nodes), arrays)


@pytest.fixture(scope="session")
def few_images():
    return np.random.default_rng(1).normal(size=(3, 6, 5, 2)).astype(np.float32)
