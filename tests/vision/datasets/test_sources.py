"""`load` and the surface of the package."""

import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.vision import Resize, load, record_source


@pytest.mark.parametrize("name", ["", "MNIST", "cifar100", "tfds", "folder:", "mnist:x"])
def test_unknown_name(name):
    message = (
        f"^there is no data set '{name}', "
        "expected digits, mnist, fashion_mnist, cifar10, svhn, tfds:NAME or folder:PATH$"
    )
    with pytest.raises(InputError, match=message):
        load(name)


@pytest.mark.parametrize("name", ["", "mnist", "cifar100", "tfds"])
def test_unknown_records(name):
    message = (
        f"^there are no records of '{name}', expected cifar10, tfds:NAME or folder:PATH; "
        "nnlab.vision.load reads smaller sets whole$"
    )
    with pytest.raises(InputError, match=message):
        record_source(name)


def test_unknown_split():
    with pytest.raises(InputError, match=r"^the split is 'all', expected train or test$"):
        record_source("cifar10", split="all")


def test_original_cifar10_and_its_records(original_data, monkeypatch):
    data = load("cifar10", original_data)
    monkeypatch.setenv("NNLAB_DATA_DIR", str(original_data))
    for split, size in (("train", 50_000), ("test", 10_000)):
        images, labels = data.train if split == "train" else data.test
        assert images.shape == (size, 32, 32, 3)
        assert np.bincount(labels).tolist() == [size // 10] * 10
        records = record_source("cifar10", split=split)
        assert (len(records), records.classes) == (size, data.classes)
        indices = np.random.default_rng(0).permutation(size)[:500]
        for got, expected in zip(records.gather(indices), (images, labels), strict=True):
            np.testing.assert_array_equal(got, expected[indices])
    sums = data.train.images.reshape(50_000, -1).sum(axis=0, dtype=np.uint32)
    means = sums.reshape(-1, 3).mean(axis=0) / 50_000 / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=5e-5)


def test_digits_need_no_folder_and_take_none(tmp_path):
    assert load("digits").train.images.shape == (1437, 8, 8, 1)
    for name in ("digits", f"folder:{tmp_path}"):
        with pytest.raises(InputError, match=f"^{name} is read from .* not from {tmp_path}; leave"):
            load(name, tmp_path)


def test_every_data_set_takes_another_size():
    digits = load("digits", resize=Resize(16, 12, "stretch"))
    assert digits.train.images.shape == (1437, 16, 12, 1) and digits.class_names[3] == "3"
    with pytest.raises(InputError, match="no records of 'cifar10' to resize"):
        record_source("cifar10", resize=Resize(16, 16))


def test_original_mnist_by_environment_variable(original_data, monkeypatch):
    monkeypatch.setenv("NNLAB_DATA_DIR", str(original_data))
    data = load("mnist")
    assert data.name == "mnist"
    assert data.test.images.shape == (10_000, 28, 28, 1)
    assert set(np.unique(data.test.labels)) == set(range(10))
