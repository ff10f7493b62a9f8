"""MNIST and Fashion-MNIST, from their four IDX files, raw or gzipped.

An IDX file is a big-endian header and the bytes after it:

======  ==========  ====================  ==================
file    magic       sizes                 data
======  ==========  ====================  ==================
images  0x00000803  n, height, width      n * height * width
labels  0x00000801  n                     n
======  ==========  ====================  ==================

References:
    LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE 1998;
    the format: http://yann.lecun.com/exdb/mnist.
    Xiao, Rasul and Vollgraf, Fashion-MNIST, 2017, https://arxiv.org/abs/1708.07747;
    the MD5 sums: https://github.com/zalandoresearch/fashion-mnist.
"""

import gzip
import hashlib
import os
import zlib
from pathlib import Path

import numpy as np

from nnlab.data.locate import Source, locate
from nnlab.errors import InputError
from nnlab.paths import reading
from nnlab.vision.datasets.dataset import Dataset, Split, checked_split

CLASSES = 10
RAW = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
GZIPPED = tuple(f"{file}.gz" for file in RAW)

MNIST = Source(
    name="mnist",
    folders=("mnist", "MNIST/raw", "MNIST"),
    file_sets=(RAW, GZIPPED),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    md5={
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
)
FASHION_MNIST = Source(
    name="fashion_mnist",
    folders=("fashion_mnist", "fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
    file_sets=(RAW, GZIPPED),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    md5={
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
)

# The two data sets have the same file names; the MD5 of the training labels tells which it is.
TRAIN_LABELS_MD5 = {
    "e86ee40d66677c011a9abda399ec8c4d": "mnist",
    "3236f6424fc25388b2834cb19942cf7e": "fashion_mnist",
}


def load_idx(source: Source, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Read `MNIST` or `FASHION_MNIST`, downloading it into the cache if it is not found.

    Returns:
        60,000 and 10,000 images [28, 28, 1] where the files are the published ones.

    Raises:
        InputError: it is not found and cannot be downloaded, or a file is not what it should be.
    """
    files = locate(source, data_dir)
    train_images, train_labels, test_images, test_labels = map(_read_idx, files)
    held = TRAIN_LABELS_MD5.get(hashlib.md5(train_labels.tobytes()).hexdigest(), source.name)
    if held != source.name:
        raise InputError(f"{files[1].parent} holds {held}, expected {source.name}")
    return Dataset(
        source.name,
        _split(train_images, train_labels, files[0]),
        _split(test_images, test_labels, files[2]),
        CLASSES,
    )


def _split(images: np.ndarray, labels: np.ndarray, source: Path) -> Split:
    return checked_split(images[..., np.newaxis], labels, CLASSES, source)


def _read_idx(path: Path) -> np.ndarray:
    """Return the uint8 array of one file: rank 3 if its name says images, rank 1 if labels."""
    data = _read_bytes(path)
    rank = 3 if "idx3" in path.name else 1
    magic, header_bytes = (0x800 + rank).to_bytes(4, "big"), 4 * (1 + rank)
    if data[:4] != magic:
        raise InputError(
            f"{path} begins with {data[:4].hex() or 'nothing'}, "
            f"expected {magic.hex()}, the magic number of an IDX file of rank {rank}"
        )
    if len(data) < header_bytes:
        raise InputError(f"{path} holds {len(data)} bytes, expected a header of {header_bytes}")
    shape = tuple(int(size) for size in np.frombuffer(data[4:header_bytes], ">u4"))
    body = np.frombuffer(data, np.uint8, offset=header_bytes)
    if body.size != np.prod(shape):
        raise InputError(
            f"{path} holds {body.size} bytes of data, expected {np.prod(shape)} for shape {shape}"
        )
    return body.reshape(shape)


def _read_bytes(path: Path) -> bytes:
    with reading(path):
        data = path.read_bytes()
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} is not a whole gzip file: {error}") from error
