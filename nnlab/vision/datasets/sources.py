"""Data sets by name."""

import os

import numpy as np

from nnlab.data.locate import takes_no_folder
from nnlab.errors import InputError
from nnlab.vision.datasets import (
    cifar,
    digits,
    folder,
    mnist,
    svhn,
    tfds,
)
from nnlab.vision.datasets.dataset import Dataset, Records, Split
from nnlab.vision.pictures import Resize


def load(
    name: str,
    data_dir: str | os.PathLike | None = None,
    *,
    resize: Resize | None = None,
    test_share: float = folder.TEST_SHARE,
    skip_unreadable: bool = False,
) -> Dataset:
    """Read a data set from disk, downloading it into the cache if it is not found.

    ===============  ================  =============  ==================================
    name             training / test   image          read from
    ===============  ================  =============  ==================================
    `digits`         1,437 / 360       8 × 8 × 1      scikit-learn itself
    `mnist`          60,000 / 10,000   28 × 28 × 1    IDX files, raw or `.gz`
    `fashion_mnist`  60,000 / 10,000   28 × 28 × 1    IDX files, raw or `.gz`
    `cifar10`        50,000 / 10,000   32 × 32 × 3    binary or Python files or `.tar.gz`
    `svhn`           73,257 / 26,032   32 × 32 × 3    MATLAB files
    `tfds:NAME`      as prepared       as prepared    TensorFlow Datasets, never downloaded
    `folder:PATH`    as found          as found       pictures, one folder a class
    ===============  ================  =============  ==================================

    Args:
        name: one of the above.
        data_dir: the folder that holds the files, or a folder that holds theirs under its usual
            name (`mnist`, `MNIST/raw`, `cifar-10-batches-bin`, …); by default
            `nnlab.data.locate` and `nnlab.vision.datasets.tfds` say where they are looked for.
        resize: the size to bring all images to; by default they keep theirs.
        test_share: the part of a folder's pictures to test on (`nnlab.vision.datasets.folder`).
        skip_unreadable: leave out files of a folder that are no pictures, and say so on standard
            error; by default they are an error.

    Returns:
        The training and the test images, uint8, and their classes, int32.

    Raises:
        InputError: there is no such data set, it is not found and cannot be downloaded, a file
            is not what it should be, or it is read from no `data_dir` and one is given.
    """
    kind, _, rest = name.partition(":")
    match kind, rest:
        case "folder", path if path:
            takes_no_folder(name, "the folder in its name", data_dir)
            options = {"test_share": test_share, "skip_unreadable": skip_unreadable}
            return folder.load_folder(path, resize=resize, **options)
        case "tfds", known if ":" in name:
            return tfds.load_tfds(known, data_dir, resize)
        case "digits", "":
            takes_no_folder(name, "scikit-learn", data_dir)
            dataset = digits.load_digits()
        case "mnist", "":
            dataset = mnist.load_idx(mnist.MNIST, data_dir)
        case "fashion_mnist", "":
            dataset = mnist.load_idx(mnist.FASHION_MNIST, data_dir)
        case "cifar10", "":
            dataset = cifar.load_cifar10(data_dir)
        case "svhn", "":
            dataset = svhn.load_svhn(data_dir)
        case _:
            raise InputError(
                f"there is no data set {name!r}, expected digits, mnist, fashion_mnist, cifar10, "
                "svhn, tfds:NAME or folder:PATH"
            )
    if resize is None:
        return dataset
    train, test = (_resized(split, resize) for split in (dataset.train, dataset.test))
    return dataset._replace(train=train, test=test)


def _resized(split: Split, resize: Resize) -> Split:
    return split._replace(images=np.stack([resize(image) for image in split.images]))


def record_source(
    name: str,
    data_dir: str | os.PathLike | None = None,
    split: str = "train",
    *,
    resize: Resize | None = None,
    test_share: float = folder.TEST_SHARE,
    skip_unreadable: bool = False,
) -> Records:
    """Open a split of a data set whose records stay on disk until they are asked for.

    ===============  ==================================================================
    name             read from
    ===============  ==================================================================
    `cifar10`        binary files, unpacked
    `tfds:NAME`      array_record files of TensorFlow Datasets, never downloaded
    `folder:PATH`    pictures, one folder a class
    ===============  ==================================================================

    Args:
        name: one of the above.
        data_dir, resize, test_share, skip_unreadable: as for `load`; those of `cifar10` keep their
            size. A picture that is damaged behind its header is an error when it is read.
        split: `train` or `test`.

    Raises:
        InputError: the set has no records or there is no such split, or as for `load`.
    """
    if split not in ("train", "test"):
        raise InputError(f"the split is {split!r}, expected train or test")
    kind, _, rest = name.partition(":")
    match kind, rest:
        case "folder", path if path:
            takes_no_folder(name, "the folder in its name", data_dir)
            options = {"test_share": test_share, "skip_unreadable": skip_unreadable}
            return folder.folder_records(path, split, resize=resize, **options)
        case "tfds", known if ":" in name:
            return tfds.tfds_records(known, data_dir, split, resize)
        case "cifar10", "" if resize is None:
            return cifar.cifar10_records(data_dir, split)
    raise InputError(
        f"there are no records of {name!r}{' to resize' if name == 'cifar10' else ''}, expected "
        "cifar10, tfds:NAME or folder:PATH; nnlab.vision.load reads smaller sets whole"
    )
