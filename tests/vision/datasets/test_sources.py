"""`load` and the surface of the package."""

import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.vision import load, record_source


@pytest.mark.parametrize("name", ["", "MNIST", "cifar100", "tfds"])
def test_unknown_name(name):
    message = (
        f"^there is no data set '{name}', "
        "expected digits, mnist, fashion_mnist, cifar10 or tfds:NAME$"
    )
    with pytest.raises(InputError, match=message):
        load(name)


@pytest.mark.parametrize("name", ["", "mnist", "cifar100", "tfds"])
def test_unknown_records(name):
    message = (
        f"^there are no records of '{name}', expected cifar10 or tfds:NAME; "
        "nnlab.vision.load reads smaller sets whole$"
    )
    with pytest.raises(InputError, match=message):
        record_source(name)


def test_unknown_split():
    with pytest.raises(InputError, match=r"^the split is 'all', expected train or test$"):
        record_source("cifar10", split="all")


@pytest.mark.parametrize("split", ["train", "test"])
def test_records_of_the_originals_are_its_images(original_data, split):
    whole, records = load("cifar10", original_data), record_source("cifar10", original_data, split)
    expected = whole.train if split == "train" else whole.test
    assert (len(records), records.classes) == (len(expected.labels), whole.classes)
    indices = np.random.default_rng(0).permutation(len(records))[:500]
    images, labels = records.gather(indices)
    np.testing.assert_array_equal(images, expected.images[indices])
    np.testing.assert_array_equal(labels, expected.labels[indices])


def test_digits_need_no_folder():
    assert load("digits").train.images.shape == (1437, 8, 8, 1)


@pytest.mark.parametrize("name, shape", [("mnist", (28, 28, 1)), ("cifar10", (32, 32, 3))])
def test_originals_by_environment_variable(original_data, monkeypatch, name, shape):
    monkeypatch.setenv("NNLAB_DATA_DIR", str(original_data))
    data = load(name)
    assert data.name == name
    assert data.test.images.shape == (10_000, *shape)
    assert set(np.unique(data.test.labels)) == set(range(10))
