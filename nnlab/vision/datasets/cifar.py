"""CIFAR-10, from the binary or the Python version, unpacked or still in its `.tar.gz`.

In both, six files hold 10,000 images each, a pixel's channels apart: all red, all green, all blue.

=======  ==================  ==========================================================
version  files               content
=======  ==================  ==========================================================
binary   data_batch_1.bin …  10,000 records of one label byte and 3,072 pixel bytes
Python   data_batch_1 …      a pickled dictionary: data uint8 [10000, 3072], labels list
=======  ==================  ==========================================================

Reference:
    Krizhevsky, Learning multiple layers of features from tiny images, 2009; both formats and the
    MD5 sums: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import dataclasses
import functools
import io
import os
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnlab.data.locate import Source, locate
from nnlab.errors import InputError
from nnlab.paths import reading
from nnlab.vision.datasets.dataset import Dataset, Split, checked_split

CLASS_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
CLASSES = len(CLASS_NAMES)
IMAGES_PER_FILE = 10_000
CHANNELS, HEIGHT, WIDTH = 3, 32, 32
PIXELS = CHANNELS * HEIGHT * WIDTH

PYTHON = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
BINARY = tuple(f"{file}.bin" for file in PYTHON)
BINARY_ARCHIVE = "cifar-10-binary.tar.gz"
PYTHON_ARCHIVE = "cifar-10-python.tar.gz"

CIFAR10 = Source(
    name="cifar10",
    folders=("cifar10", "cifar-10-batches-bin", "cifar-10-batches-py"),
    file_sets=(BINARY, PYTHON, (BINARY_ARCHIVE,), (PYTHON_ARCHIVE,)),
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
    md5={BINARY_ARCHIVE: "c32a1d4ab5d03f1284b67883e8d87530"},
)


def load_cifar10(data_dir: str | os.PathLike | None = None) -> Dataset:
    """Read CIFAR-10, downloading the binary version into the cache if it is not found.

    Returns:
        50,000 and 10,000 images [32, 32, 3], red, green and blue.

    Raises:
        InputError: it is not found and cannot be downloaded, or a file is not what it should be.
    """
    files = locate(CIFAR10, data_dir)
    contents = _unpack(files[0]) if len(files) == 1 else [(str(f), _bytes(f)) for f in files]
    *train, test = [_read_file(name, data) for name, data in contents]
    images, labels = zip(*train, strict=True)
    train = Split(np.concatenate(images), np.concatenate(labels))
    return Dataset(CIFAR10.name, train, test, CLASSES, CLASS_NAMES)


@dataclasses.dataclass(frozen=True)
class CifarRecords:
    """Records of binary files, which stay on disk.

    `nnlab.vision.datasets.dataset.Records` says what each method does.

    Attributes:
        paths: files of equally many records, unpacked; `cifar10_records` checks them.
        classes: labels are below it.
    """

    paths: tuple[Path, ...]
    classes: int = CLASSES

    @property
    def class_names(self) -> tuple[str, ...]:
        return CLASS_NAMES

    @functools.cached_property
    def _files(self) -> list[np.ndarray]:
        maps = [np.memmap(path, np.uint8, "r") for path in self.paths]
        return [np.asarray(file).reshape(-1, 1 + PIXELS) for file in maps]

    def __getstate__(self) -> dict:
        return {"paths": self.paths, "classes": self.classes}  # or the maps' content comes along

    def __len__(self) -> int:
        return sum(map(len, self._files))

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        images, labels = self.gather([index])
        return images[0], int(labels[0])

    def gather(self, indices: Sequence[int] | np.ndarray) -> Split:
        places = [divmod(int(i), len(self._files[0])) for i in indices]
        records = np.stack([self._files[file][row] for file, row in places])
        return Split(_channels_last(records[:, 1:]), records[:, 0].astype(np.int32))


def cifar10_records(
    data_dir: str | os.PathLike | None = None, split: str = "train"
) -> CifarRecords:
    """Open CIFAR-10 without reading its images; the label of every record is checked.

    Args:
        data_dir: as for `load_cifar10`.
        split: `train` or `test`.

    Raises:
        InputError: as for `load_cifar10`, or only an archive or the Python version is there.
    """
    files = locate(CIFAR10, data_dir)
    if tuple(file.name for file in files) != BINARY:
        raise InputError(
            f"{files[0]} cannot be read a record at a time, expected {', '.join(BINARY)}: "
            f"unpack {BINARY_ARCHIVE} beside it"
        )
    paths = tuple(files[:-1] if split == "train" else files[-1:])
    for path in paths:
        with reading(path):
            path.open("rb").close()
            _check_size(str(path), path.stat().st_size)
    records = CifarRecords(paths)
    for path, file in zip(paths, records._files, strict=True):
        checked_split(file[:, 1:], file[:, 0], CLASSES, path)
    return records


def _bytes(path: Path) -> bytes:
    with reading(path):
        return path.read_bytes()


def _unpack(archive: Path) -> list[tuple[str, bytes]]:
    """Return name and content of the six files in an archive; nothing is written to disk."""
    wanted = BINARY if archive.name == BINARY_ARCHIVE else PYTHON
    contents = {}
    with reading(archive):
        archive.open("rb").close()
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None and Path(member.name).name in wanted:
                    contents[Path(member.name).name] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise InputError(f"{archive} is not a whole .tar.gz archive: {error}") from error
    missing = [name for name in wanted if name not in contents]
    if missing:
        raise InputError(f"{archive} lacks {', '.join(missing)}")
    return [(f"{archive}/{name}", contents[name]) for name in wanted]


def _read_file(name: str, data: bytes) -> Split:
    pixels, labels = (_read_records if name.endswith(".bin") else _read_pickle)(name, data)
    return checked_split(_channels_last(pixels), labels, CLASSES, name)


def _channels_last(pixels: np.ndarray) -> np.ndarray:
    """Images [n, 32, 32, 3] of pixels [n, 3072] as they are stored."""
    images = pixels.reshape(-1, CHANNELS, HEIGHT, WIDTH).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images)


def _check_size(name: str, size: int) -> None:
    expected = IMAGES_PER_FILE * (1 + PIXELS)
    if size != expected:
        raise InputError(f"{name} holds {size} bytes, expected {expected}")


def _read_records(name: str, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The pixels [10000, 3072] and the labels [10000] of a file of the binary version."""
    _check_size(name, len(data))
    records = np.frombuffer(data, np.uint8).reshape(IMAGES_PER_FILE, 1 + PIXELS)
    return records[:, 1:], records[:, 0]


def _read_pickle(name: str, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The pixels [10000, 3072] and the labels [10000] of a file of the Python version."""
    try:
        batch = _BatchUnpickler(io.BytesIO(data), encoding="latin1").load()
        pixels, labels = batch["data"].array, np.asarray(batch["labels"])
    except Exception as error:  # a damaged pickle can raise almost anything
        raise InputError(
            f"{name} is not a pickled CIFAR-10 batch, a dictionary with data and labels: {error!r}"
        ) from error
    if pixels.shape != (IMAGES_PER_FILE, PIXELS):
        raise InputError(
            f"{name} holds data of shape {pixels.shape}, expected ({IMAGES_PER_FILE}, {PIXELS})"
        )
    return pixels, labels


class _BatchUnpickler(pickle.Unpickler):
    """Restores uint8 arrays, strings, numbers, lists and dictionaries; all else is an error.

    A pickle calls what it is given by name, and `numpy.ndarray` itself, called with type object,
    takes the bytes of a file for addresses of objects, so it is given stand-ins.
    """

    def find_class(self, module: str, name: str):
        # numpy.core became numpy._core in NumPy 2.
        match f"{module.replace('numpy._core', 'numpy.core')}.{name}":
            case "numpy.core.multiarray._reconstruct" | "numpy.ndarray":
                return _PickledArray
            case "numpy.dtype":
                return _PickledType
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


class _PickledArray:
    """An array to be filled in; the arguments of `_reconstruct` describe an empty one."""

    def __init__(self, *_):
        self.array = np.empty(0, np.uint8)

    def __setstate__(self, state):
        _, shape, pickled_type, column_major, data = state
        if pickled_type.code != "u1":
            raise pickle.UnpicklingError(f"an array is of type {pickled_type.code}, expected u1")
        data = data.encode("latin1") if isinstance(data, str) else data  # str by Python 2
        order = "F" if column_major else "C"
        self.array = np.frombuffer(data, np.uint8).reshape(shape, order=order)


class _PickledType:
    """A dtype's code; the state that follows it is about byte order and fields."""

    def __init__(self, code, *_):
        self.code = code

    def __setstate__(self, state):
        pass
