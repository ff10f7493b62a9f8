"""The MATLAB files of SVHN: axes, the digit 0, and damaged ones."""

import numpy as np
import pytest
from scipy import io

from nnlab.errors import InputError
from nnlab.vision import load
from nnlab.vision.datasets.svhn import FILES

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
LABELS = np.array([1, 10, 9, 10, 2], np.uint8)


def write(path, images=IMAGES, labels=LABELS):
    io.savemat(path, {"X": images.transpose(1, 2, 3, 0), "y": labels[:, None]})


@pytest.fixture
def folder(tmp_path):
    for name in FILES:
        write(tmp_path / name)
    return tmp_path


def test_reads_both_files(folder):
    write(folder / FILES[1], IMAGES[:2], LABELS[:2])
    data = load("svhn", folder)
    np.testing.assert_array_equal(data.train.images, IMAGES)
    assert data.train.labels.tolist() == [1, 0, 9, 0, 2] and data.train.labels.dtype == np.int32
    assert data.test.labels.tolist() == [1, 0]
    assert (data.classes, data.class_names[0]) == (10, "0")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b"x" * 200), "is not a MATLAB file with X and y"),
        (lambda path: path.write_bytes(path.read_bytes()[:-999]), "is not a MATLAB file with X"),
        (lambda path: io.savemat(path, {"X": IMAGES}), "is not a MATLAB file with X and y: KeyErr"),
        (lambda path: write(path, IMAGES.astype(float)), "holds X as float64"),
        (lambda path: write(path, labels=LABELS * 0), "holds labels from 0 to 0, expected 1 to 10"),
        (lambda path: write(path, labels=LABELS[:3]), r"labels have shape \(3,\), expected \(5,\)"),
    ],
)
def test_names_the_wrong_file(folder, spoil, message):
    spoil(folder / FILES[1])
    with pytest.raises(InputError, match=f"^{folder / FILES[1]}:? {message}"):
        load("svhn", folder)
