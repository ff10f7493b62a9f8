"""Bounds that some input attains, and networks refused because they could overflow."""

import dataclasses

import numpy as np
import pytest

from nnlab.deployment import (
    IntegerNetwork,
    Node,
    accumulator_bounds,
    reference,
    run,
)
from nnlab.errors import InputError

SIDES = {"strides": [1, 1], "padding": [[1, 1], [1, 1]]}
WIDE = {"padding": [[0, 2], [0, 0]]}
INSIDE = {"strides": [1, 1], "padding": [[0, 0], [0, 0]]}


def network(*nodes, **arrays):
    return IntegerNetwork(tuple(Node(*node) for node in nodes), arrays)


def of_bytes(op, attributes, kernel, top=255):
    """The op on one byte a pixel, as the images say."""
    quantize = ("x", "quantize", ("images",), {"scale": 1.0, "low": 0, "high": top}, {})
    return network(quantize, ("y", op, ("x",), attributes, {"kernel": "w"}), w=kernel)


@pytest.mark.parametrize(
    ("op", "attributes", "dtype"),
    [
        ("conv", INSIDE, np.int8),
        ("adder_conv", {**INSIDE, "shift": 0, "bits": 8, "padding_value": 0}, np.uint8),
        ("adder_conv", {**INSIDE, "shift": 1, "bits": 7, "padding_value": 0}, np.uint8),
    ],
)
def test_the_bound_is_the_largest_sum_over_all_inputs(op, attributes, dtype):
    rng = np.random.default_rng(0)
    least, most = (-127, 128) if dtype == np.int8 else (0, 2 ** attributes["bits"])
    kernel = rng.integers(least, most, (2, 2, 1, 3)).astype(dtype)
    # A sum of terms that are each convex in their pixel is extreme where all pixels are.
    corners = np.stack(np.meshgrid(*[[0, 255]] * 4), axis=-1).reshape(16, 2, 2, 1)
    integer = of_bytes(op, attributes, kernel)
    sums = reference(integer, corners.astype(np.uint8))["y"]
    bounds = accumulator_bounds(integer)["y"]
    assert bounds.low == sums.min()
    assert bounds.high == (sums.max() if op == "conv" else 0)


def test_requantize_could_leave_int32():
    def requantize(multiplier, shift, center=0, offset=0):
        values = {"c": center, "m": multiplier, "s": shift, "o": offset}
        roles = {"center": "c", "multiplier": "m", "shift": "s", "offset": "o"}
        quantize = ("x", "quantize", ("images",), {"scale": 1.0, "low": -127, "high": 255}, {})
        node = ("y", "requantize", ("x",), {"low": 0, "high": 15}, roles)
        return network(quantize, node, **{k: np.array([v], np.int32) for k, v in values.items()})

    largest = (2**31 - 1) // 255
    accumulator_bounds(requantize(largest, 0))
    half = 2**29
    accumulator_bounds(requantize((2**31 - 1 - half) // 255, 30))
    for wrong in (
        requantize(largest + 1, 0),
        requantize((2**31 - 1 - half) // 255 + 1, 30),
        requantize(1, 0, center=-(2**31) + 10),
        requantize(1, 0, offset=2**31 - 100),
        requantize(1, 31),
        requantize(1, -1),
    ):
        with pytest.raises(InputError, match=r"^node 'y' could reach numbers from .* ±2147483647"):
            run(wrong)


def test_a_convolution_may_leave_the_integers_of_float32():
    wide = np.full((3, 3, 58, 1), 127, np.int8)  # 9 · 58 · 127 · 255 = 16,904,970 > 2^24
    integer = of_bytes("conv", INSIDE, wide)
    assert accumulator_bounds(integer)["y"] == (0, 16904970)
    image = np.full((2, 3, 3, 58), 255, np.uint8)
    image[1, 0, 0, 0] = 254
    assert run(integer)(image).ravel().tolist() == [16904970, 16904970 - 127]
    once = of_bytes("conv", INSIDE, np.full((1, 2, 1, 1), 127, np.int8), top=2**23)
    assert run(once)(np.array([2**23, 1], np.float32).reshape(1, 1, 2, 1)) == 127 * (2**23 + 1)


def test_sums_could_leave_int32():
    total = network(
        ("x", "quantize", ("images",), {"scale": 1.0, "low": 0, "high": 2**20}, {}),
        ("y", "sum", ("x",), {"positions": 2**11}, {}),
    )
    with pytest.raises(InputError, match=r"'y' could reach numbers from 0 to 2147483648"):
        accumulator_bounds(total)


def test_what_is_no_network():
    quantize = Node("x", "quantize", ("images",), {"scale": 1.0, "low": 0, "high": 300}, {})
    adder = {**SIDES, "shift": 1, "bits": 7, "padding_value": 0}
    kernel = np.full((1, 1, 1, 1), 127, np.uint8)
    for node, message in (
        (Node("x", "flatten", ("x",), {}, {}), "two values called 'x'"),
        (Node("y", "flatten", ("z",), {}, {}), "'y' takes 'z', which no node before it gives"),
        (Node("y", "exp", ("x",), {}, {}), "'y' has the op 'exp', which no network knows"),
        (Node("y", "sum", ("x",), {}, {}), "'y' of op 'sum' lacks 'positions'"),
        (Node("y", "dense", ("x",), {}, {"kernel": "v"}), "'y' of op 'dense' lacks 'v'"),
        (Node("y", "adder_conv", ("x",), adder, {"kernel": "w"}), "0 to 300, not bytes"),
        (
            Node("y", "max_pool", ("x",), {"window": [2, 2], **WIDE}, {}),
            "less than a window",
        ),
    ):
        with pytest.raises(InputError, match=message):
            run(IntegerNetwork((quantize, node), {"w": kernel}))
    wide = dataclasses.replace(quantize, attributes={"scale": 1.0, "low": 0, "high": 2**25})
    with pytest.raises(InputError, match="'x' could reach numbers from 0 to 33554432"):
        run(IntegerNetwork((wide,), {}))
    for change, message in (({"bits": 6}, "do not fit in 6 bits"), ({"shift": 2}, "reaches 508")):
        with pytest.raises(InputError, match=message):
            run(of_bytes("adder_conv", adder | change, kernel))


def test_a_network_is_for_one_size_of_images():
    total = network(
        ("x", "quantize", ("images",), {"scale": 1.0, "low": 0, "high": 255}, {}),
        ("y", "sum", ("x",), {"positions": 4}, {}),
    )
    image = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)
    assert run(total)(image).tolist() == [[6]]
    with pytest.raises(InputError, match=r"made for 4 positions .* got 3 by 3"):
        run(total)(np.zeros((1, 3, 3, 1), np.uint8))
