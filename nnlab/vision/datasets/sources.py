"""Data sets by name."""

import os

from nnlab.errors import InputError
from nnlab.vision.datasets import (
    cifar,
    digits,
    mnist,
    tfds,
)
from nnlab.vision.datasets.dataset import Dataset, Records


def load(name: str, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Read a data set from disk, downloading it into the cache if it is not found.

    ===============  ================  =============  ==================================
    name             training / test   image          read from
    ===============  ================  =============  ==================================
    `digits`         1,437 / 360       8 × 8 × 1      scikit-learn itself
    `mnist`          60,000 / 10,000   28 × 28 × 1    IDX files, raw or `.gz`
    `fashion_mnist`  60,000 / 10,000   28 × 28 × 1    IDX files, raw or `.gz`
    `cifar10`        50,000 / 10,000   32 × 32 × 3    binary or Python files or `.tar.gz`
    `tfds:NAME`      as prepared       as prepared    TensorFlow Datasets, never downloaded
    ===============  ================  =============  ==================================

    Args:
        name: one of the above.
        data_dir: the folder that holds the files, or a folder that holds theirs under its usual
            name (`mnist`, `MNIST/raw`, `cifar-10-batches-bin`, …). Searched first;
            `nnlab.data.locate` and `nnlab.vision.datasets.tfds` say which follow.

    Returns:
        The training and the test images, uint8, and their classes, int32.

    Raises:
        InputError: there is no such data set, it is not found and cannot be downloaded, or a file
            is not what it should be.
    """
    if name.startswith("tfds:"):
        return tfds.load_tfds(name.removeprefix("tfds:"), data_dir)
    match name:
        case "digits":
            return digits.load_digits()
        case "mnist":
            return mnist.load_idx(mnist.MNIST, data_dir)
        case "fashion_mnist":
            return mnist.load_idx(mnist.FASHION_MNIST, data_dir)
        case "cifar10":
            return cifar.load_cifar10(data_dir)
    raise InputError(
        f"there is no data set {name!r}, expected digits, mnist, fashion_mnist, cifar10 or "
        "tfds:NAME"
    )


def record_source(
    name: str, data_dir: str | os.PathLike | None = None, split: str = "train"
) -> Records:
    """Open a split of a data set whose records stay on disk until they are asked for.

    ===============  ==================================================================
    name             read from
    ===============  ==================================================================
    `cifar10`        binary files, unpacked
    `tfds:NAME`      array_record files of TensorFlow Datasets, never downloaded
    ===============  ==================================================================

    Args:
        name: one of the above.
        data_dir: as for `load`.
        split: `train` or `test`.

    Raises:
        InputError: the set has no records or there is no such split, or as for `load`.
    """
    if split not in ("train", "test"):
        raise InputError(f"the split is {split!r}, expected train or test")
    if name.startswith("tfds:"):
        return tfds.tfds_records(name.removeprefix("tfds:"), data_dir, split)
    if name == "cifar10":
        return cifar.cifar10_records(data_dir, split)
    raise InputError(
        f"there are no records of {name!r}, expected cifar10 or tfds:NAME; "
        "nnlab.vision.load reads smaller sets whole"
    )
