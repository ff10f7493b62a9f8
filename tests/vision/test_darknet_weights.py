"""Files of darknet: headers of both versions, backbones, and files that are too short or too long.

That networks give what darknet's give with a file is in `detection/test_yolo_networks.py`.
"""

import struct

import jax
import numpy as np
import pytest

from nnlab.arithmetics import ADDER
from nnlab.errors import InputError
from nnlab.vision.darknet import Darknet53
from nnlab.vision.darknet_weights import Header, read_darknet, write_darknet


def _variables(kernel="kernel"):
    """Two layers as `nnlab.vision.darknet` has them: 3×3 with BatchNorm, and 1×1 with a bias."""
    norm = {"bias": np.zeros(2, np.float32), "scale": np.ones(2, np.float32)}
    params = {
        "conv1": {"conv": {kernel: np.zeros((3, 3, 1, 2), np.float32)}, "bn": norm},
        "conv2": {
            "conv": {"kernel": np.zeros((1, 1, 2, 3), np.float32), "bias": np.zeros(3, np.float32)}
        },
    }
    statistics = {"mean": np.zeros(2, np.float32), "var": np.ones(2, np.float32)}
    return {"params": params, "batch_stats": {"conv1": {"bn": statistics}}}


NUMBERS = np.arange(1, 36, dtype="<f4")  # 4 · 2 + 18, then 3 + 6


@pytest.fixture
def file(tmp_path):
    def write(numbers=NUMBERS, header=(0, 2, 0, 7), extra=b""):
        form = "<iiiq" if 10 * header[0] + header[1] >= 2 else "<iiii"
        path = tmp_path / "some.weights"
        path.write_bytes(struct.pack(form, *header) + numbers.tobytes() + extra)
        return path

    return write


@pytest.mark.parametrize("header", [(0, 1, 0, 7), (0, 2, 0, 7), (0, 2, 5, 2**40)])
def test_order_of_a_file(file, header):
    found, told = read_darknet(file(header=header), _variables())
    assert told == Header(header[:3], header[3])
    layer, statistics = found["params"]["conv1"], found["batch_stats"]["conv1"]["bn"]
    assert (layer["bn"]["bias"].tolist(), layer["bn"]["scale"].tolist()) == ([1, 2], [3, 4])
    assert (statistics["mean"].tolist(), statistics["var"].tolist()) == ([5, 6], [7, 8])
    np.testing.assert_array_equal(layer["conv"]["kernel"][..., 0, 0].ravel(), np.arange(9, 18))
    np.testing.assert_array_equal(layer["conv"]["kernel"][..., 0, 1].ravel(), np.arange(18, 27))
    last = found["params"]["conv2"]["conv"]
    assert last["bias"].tolist() == [27, 28, 29]
    assert last["kernel"][0, 0].T.tolist() == [[30, 31], [32, 33], [34, 35]]


def test_what_is_written_is_what_was_read(file, tmp_path):
    found, _ = read_darknet(file(), _variables())
    write_darknet(tmp_path / "copy.weights", found, seen=7)
    assert (tmp_path / "copy.weights").read_bytes() == file().read_bytes()
    write_darknet(tmp_path / "some.conv.1", found, layers=1)
    backbone, _ = read_darknet(tmp_path / "some.conv.1", _variables(), layers=1)
    assert backbone["params"]["conv1"]["bn"]["scale"].tolist() == [3, 4]
    assert not np.any(backbone["params"]["conv2"]["conv"]["kernel"])  # as it was


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (30, ["after 4 of the 9 numbers of conv2"]),
        (5, ["after 5 of the 26 numbers of conv1"]),
        (26, ["ends before conv2", "layers=1"]),
    ],
)
def test_a_file_that_ends_too_early_says_where(file, count, words):
    with pytest.raises(InputError) as error:
        read_darknet(file(NUMBERS[:count]), _variables())
    assert all(word in str(error.value) for word in ["some.weights", *words])


def test_other_bad_files(file, tmp_path):
    with pytest.raises(InputError, match="8 more than the 2 layers"):
        read_darknet(file(np.append(NUMBERS, [1, 2]).astype("<f4")), _variables())
    with pytest.raises(InputError, match="2 more than"):
        read_darknet(file(extra=b"ab"), _variables())
    with pytest.raises(InputError, match=r"version 1001\.0"):
        read_darknet(file(header=(1001, 0, 0, 1)), _variables())
    with pytest.raises(InputError, match="start=True"):
        read_darknet(file(), _variables("adder_kernel"))
    started, _ = read_darknet(file(), _variables("adder_kernel"), start=True)
    assert started["params"]["conv1"]["conv"]["adder_kernel"][0, 0, 0].tolist() == [9, 18]
    with pytest.raises(InputError, match="layers is 3"):
        read_darknet(file(), _variables(), layers=3)
    (tmp_path / "short").write_bytes(b"1234567")
    with pytest.raises(InputError, match="7 bytes"):
        read_darknet(tmp_path / "short", _variables())
    with pytest.raises(InputError, match="Dense_0"):
        read_darknet(file(), {"params": {"Dense_0": {}}})


@pytest.mark.slow
def test_the_backbone_of_the_published_size_fits(tmp_path):
    """darknet53.conv.74, of 162,482,580 bytes, holds 52 layers of Darknet-53."""
    images = np.zeros((1, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(Darknet53(arithmetic=ADDER).init, jax.random.key(0), images)
    path = tmp_path / "darknet53.conv.74"
    for missing, words in ((4, "of conv52"), (0, "ends before conv53; layers=52")):
        header = struct.pack("<iiiq", 0, 2, 0, 0)
        path.write_bytes(header + bytes(162_482_580 - len(header) - missing))
        with pytest.raises(InputError, match=words):
            read_darknet(path, shapes, start=True)
