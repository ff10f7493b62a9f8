"""Layers replayed from the text files alone."""

import json
from typing import Any

import numpy as np
import pytest

from nnlab.deployment import accumulator_bounds
from nnlab.deployment.vectors import write_vectors
from nnlab.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_network, few_images):
    folder = tmp_path_factory.mktemp("vectors") / "made" / "here"
    write_vectors(folder, small_network, few_images)
    return folder


def read(folder, entry) -> Any:
    """The words of a file as Python's integers, by the words of the documentation alone."""
    words = [int(line, 16) for line in (folder / entry["file"]).read_text().splitlines()]
    assert all(0 <= word < 2 ** entry["bits"] for word in words)
    if entry["kind"] == "float":
        numbers = np.array(words, np.uint32).view(np.float32)
    elif entry["kind"] == "signed":
        half = 2 ** (entry["bits"] - 1)
        numbers = np.array([word - 2 * half * (word >= half) for word in words])
    else:
        numbers = np.array(words)
    return numbers.reshape(entry["shape"])


def windows(layer, x, kernel, value):
    """[batch, rows, columns, kh, kw, in] of a padded image, where it is inside, and the kernel."""
    (top, bottom), (left, right) = layer["attributes"]["padding"]
    pads = ((0, 0), (top, bottom), (left, right), (0, 0))
    inside = np.pad(np.ones_like(x), pads)
    x = np.pad(x, pads, constant_values=value)
    sy, sx = layer["attributes"]["strides"]
    kh, kw = kernel.shape[:2]
    found = [
        np.lib.stride_tricks.sliding_window_view(a, (kh, kw), (1, 2))[:, ::sy, ::sx]
        for a in (x, inside)
    ]
    return [np.moveaxis(a, 3, -1)[..., None] for a in found]


def replay(folder, layer, values):
    x = read(folder, values[layer["inputs"][0]])
    own = {role: read(folder, entry) for role, entry in layer["arrays"].items()}
    attributes = layer["attributes"]
    match layer["op"]:
        case "conv":
            patches, _ = windows(layer, x, own["kernel"], 0)
            return (patches * own["kernel"]).sum((3, 4, 5))
        case "adder_conv":
            kernel = own["kernel"] << attributes["shift"]
            patches, _ = windows(layer, x, kernel, attributes["padding_value"])
            return -abs(patches - kernel).sum((3, 4, 5))
        case "binary_conv":
            kernel, channels = own["kernel"], attributes["channels"]
            patches, inside = windows(layer, x, kernel, 0)
            unequal = (patches ^ kernel)[..., None] >> np.arange(channels) & 1
            return (inside[..., None] * (1 - 2 * unequal)).sum((3, 4, 5, 7))
        case "requantize":
            product = (x - own["center"]) * own["multiplier"]
            y = (product + (1 << own["shift"] >> 1) >> own["shift"]) + own["offset"]
            return np.clip(y, attributes["low"], attributes["high"])
        case "dense":
            return x @ own["kernel"]
        case "sum":
            return x.sum((1, 2))
        case "pack_signs":
            bits = x * own["sign"] >= own["threshold"]
            return (bits * 2 ** np.arange(x.shape[-1])).sum(-1, keepdims=True)
        case "quantize":
            y = np.rint(x * np.float32(attributes["scale"]))
            return np.clip(y, attributes["low"], attributes["high"])
        case "dequantize":
            return x.astype(np.float32) * np.float32(attributes["step"])
    raise AssertionError(layer["op"])


def test_every_layer_replays(folder):
    index = json.loads((folder / "layers.json").read_text())
    assert len(index["layers"]) == 10
    for layer in index["layers"]:
        expected = read(folder, index["values"][layer["output"]])
        assert len(np.unique(expected)) > 1, layer["name"]
        found = replay(folder, layer, index["values"])
        np.testing.assert_array_equal(found, expected, err_msg=layer["name"])


def test_accumulators_are_those_of_the_bounds_and_wide_enough(folder, small_network):
    index = json.loads((folder / "layers.json").read_text())
    bounds = accumulator_bounds(small_network)
    sums = {"first", "near", "agreeing", "total", "product"}
    for layer in index["layers"]:
        accumulator = layer["accumulator"]
        assert (accumulator is not None) == (layer["name"] in sums)
        if accumulator:
            low, high = bounds[layer["name"]]
            assert (accumulator["low"], accumulator["high"]) == (low, high)
            half = 2 ** (accumulator["bits"] - 1)
            assert -half <= low <= high < half
            assert low < -half // 2 or high >= half // 2  # a bit less would not do


def test_words_by_hand(folder, small_network):
    index = json.loads((folder / "layers.json").read_text())
    layers = {layer["name"]: layer for layer in index["layers"]}
    first, near = (layers[name]["arrays"]["kernel"] for name in ("first", "near"))
    assert (first["bits"], first["kind"], first["shape"]) == (8, "signed", [3, 3, 2, 5])
    assert (near["bits"], near["kind"]) == (4, "unsigned")
    lines = (folder / first["file"]).read_text().splitlines()
    assert lines[:3] == [
        f"{int(w) % 256:02x}" for w in small_network.arrays["first.kernel"].flat[:3]
    ]
    lines = (folder / near["file"]).read_text().splitlines()
    assert lines[:3] == [f"{w:x}" for w in small_network.arrays["near.kernel"].flat[:3]]


def test_a_folder_of_something_else_is_refused(tmp_path, small_network, few_images):
    (tmp_path / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="is not empty; expected a new folder"):
            write_vectors(tmp_path, small_network, few_images, overwrite=overwrite)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_of_vectors_is_replaced_on_demand(tmp_path, small_network, few_images):
    (tmp_path / "layers.json").write_text("{}")
    (tmp_path / "999_old.hex").write_text("00\n")
    with pytest.raises(InputError, match="is not empty"):
        write_vectors(tmp_path, small_network, few_images)
    write_vectors(tmp_path, small_network, few_images[:1], overwrite=True)
    assert not (tmp_path / "999_old.hex").exists()
    index = json.loads((tmp_path / "layers.json").read_text())
    assert index["values"]["images"]["shape"] == [1, 6, 5, 2]
