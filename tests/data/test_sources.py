"""`load` and the surface of the package."""

import subprocess
import sys

import numpy as np
import pytest

from nnlab.data import load
from nnlab.errors import InputError


@pytest.mark.parametrize("name", ["", "MNIST", "cifar100", "tfds"])
def test_unknown_name(name):
    message = (
        f"^there is no data set '{name}', "
        "expected digits, mnist, fashion_mnist, cifar10 or tfds:NAME$"
    )
    with pytest.raises(InputError, match=message):
        load(name)


def test_digits_need_no_folder():
    assert load("digits").train.images.shape == (1437, 8, 8, 1)


@pytest.mark.parametrize("name, shape", [("mnist", (28, 28, 1)), ("cifar10", (32, 32, 3))])
def test_originals_by_environment_variable(original_data, monkeypatch, name, shape):
    monkeypatch.setenv("NNLAB_DATA_DIR", str(original_data))
    data = load(name)
    assert data.name == name
    assert data.test.images.shape == (10_000, *shape)
    assert set(np.unique(data.test.labels)) == set(range(10))


def test_importing_needs_only_numpy_and_jax():
    code = (
        "import sys, nnlab.data; heavy = {'sklearn', 'pooch', 'requests', 'tqdm', "
        "'tensorflow_datasets', 'flax'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
