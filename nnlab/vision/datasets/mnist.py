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
import os
import zlib
from pathlib import Path

import numpy as np

from nnlab.data.locate import Source, locate
from nnlab.errors import InputError
from nnlab.paths import reading
from nnlab.vision.datasets.dataset import DIGIT_NAMES, Dataset, Split, checked_split

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

CLASS_NAMES = {
    "mnist": DIGIT_NAMES,
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}

# The two data sets have the same file names, and a part of one has other checksums than the whole.
# So the pixels tell which it is: the mean training image of each class in 7 by 7 blocks of 4 by 4
# pixels, a hexadecimal digit a block.
CLASS_MEANS = {
    "mnist": (
        "0000000002782001876700481380066275003996100000000",
        "000000000044100007500000a200002910000461000000000",
        "0001000015871001237200026710048a73103754200000000",
        "0000000015861001267100049710011273003786100011000",
        "0000000002132001636300396a20025771000143000001100",
        "0000000002553101674210177410012362002675100011000",
        "0001100002641000561100186740019884000474000000000",
        "000000000122000388a300122910001650000272000023100",
        "000000000277200166740005a710016851001785100011000",
        "0000000001430001768200277910013660000153000012100",
    ),
    "fashion_mnist": (
        "0378730079998117999710299930029992002999300289830",
        "006a800008b900008a9000077800007680000658000055700",
        "0279730079997008999911999991189999118999811645461",
        "0067610018a820017a720017a820018b910018b910017a810",
        "006a61004aba5007aaa8008aaa9008aaa9118aaa810556651",
        "0000010000122100134430234564255566513331220111001",
        "0258620058886007988711688871168986116898610467641",
        "0000000000010000147432479aa8467877601111110000000",
        "00121001343432368777449a9a9649aaaa638999841465541",
        "000122100037740006bb60029bb8348bbb858996861232121",
    ),
}
_ALIKE = 0.65  # 10 images or more correlate by 0.7 and more with their own means, 0.6 with others


def load_idx(source: Source, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Read `MNIST` or `FASHION_MNIST`, downloading it into the cache if it is not found.

    Returns:
        60,000 and 10,000 images [28, 28, 1] where the files are the published ones.

    Raises:
        InputError: it is not found and cannot be downloaded, or a file is not what it should be.
    """
    files = locate(source, data_dir)
    train_images, train_labels, test_images, test_labels = map(_read_idx, files)
    train = _split(train_images, train_labels, files[0])
    test = _split(test_images, test_labels, files[2])
    if (held := _which(train)) not in (None, source.name):
        raise InputError(f"{files[0].parent} holds {held} or a part of it, expected {source.name}")
    return Dataset(source.name, train, test, CLASSES, CLASS_NAMES[source.name])


def _which(split: Split) -> str | None:
    """Return the data set whose class means the images are alike, or None if neither."""
    if split.images.shape[1:] != (28, 28, 1):
        return None
    some = slice(None, None, max(len(split.labels) // 1000, 1))
    images, labels = split.images[some], split.labels[some]
    blocks = images.reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4)).reshape(-1, 49)

    def likeness(name: str) -> float:
        """Return the correlation of all blocks with those of their class means."""
        means = np.array([[int(digit, 16) for digit in each] for each in CLASS_MEANS[name]])
        a, b = blocks - blocks.mean(), means[labels] - means[labels].mean()
        return float((a * b).sum() / np.sqrt(np.square(a).sum() * np.square(b).sum() or 1.0))

    best = max(CLASS_MEANS, key=likeness)
    return best if likeness(best) > _ALIKE else None


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
