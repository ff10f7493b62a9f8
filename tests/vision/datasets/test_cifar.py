"""CIFAR-10 in its four forms: records, pickles, and each in an archive."""

import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.vision.datasets import cifar

N = 4
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (6, N, 3072), np.uint8)
LABELS = RANDOM.integers(0, 10, (6, N), np.uint8)


@pytest.fixture(autouse=True)
def four_images_a_file(monkeypatch):
    monkeypatch.setattr(cifar, "IMAGES_PER_FILE", N)


def records(pixels, labels):
    return np.column_stack([labels, pixels]).tobytes()


def pickled(pixels, labels):
    return pickle.dumps({"labels": labels.tolist(), "data": pixels}, protocol=4)


def pickled_by_python_2(pixels, labels):
    """The opcodes of the published files: byte strings of Python 2, names of NumPy 1."""

    def string(text):  # SHORT_BINSTRING
        return b"U" + bytes([len(text)]) + text

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + string(b"b") + b"tR"
    )
    dtype = b"cnumpy\ndtype\n(" + string(b"u1") + b"K\x00K\x01tR"
    dtype += b"(K\x03" + string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"(M" + struct.pack("<H", len(pixels)) + b"M" + struct.pack("<H", 3072) + b"t"
    data = b"T" + struct.pack("<I", pixels.size) + pixels.tobytes()  # BINSTRING
    state = b"(K\x01" + shape + dtype + b"\x89" + data + b"tb"
    items = string(b"batch_label") + string(b"training batch 1 of 5")
    items += string(b"labels") + b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    items += string(b"data") + array + state
    return b"\x80\x02}(" + items + b"u."


def contents(write, names):
    return {n: write(p, c) for n, p, c in zip(names, PIXELS, LABELS, strict=True)}


FORMATS = {
    "binary": (cifar.BINARY, records),
    "Python 2": (cifar.PYTHON, pickled_by_python_2),
    "Python 3": (cifar.PYTHON, pickled),
}


def write_folder(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def write_archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def check(data):
    images = PIXELS.reshape(6, N, 3, 32, 32).transpose(0, 1, 3, 4, 2)
    assert (data.name, data.classes) == ("cifar10", 10)
    assert data.train.images.dtype == np.uint8 and data.train.labels.dtype == np.int32
    assert data.train.images.flags.c_contiguous and data.test.images.flags.c_contiguous
    np.testing.assert_array_equal(data.train.images, images[:5].reshape(-1, 32, 32, 3))
    np.testing.assert_array_equal(data.train.labels, LABELS[:5].ravel())
    np.testing.assert_array_equal(data.test.images, images[5])
    np.testing.assert_array_equal(data.test.labels, LABELS[5])


@pytest.mark.parametrize("names, write", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("below", ["", *cifar.CIFAR10.folders])
def test_reads_every_format_in_every_folder(tmp_path, below, names, write):
    write_folder(tmp_path / below, contents(write, names))
    check(cifar.load_cifar10(tmp_path))


@pytest.mark.parametrize("archive, names, write", [
    (cifar.BINARY_ARCHIVE, cifar.BINARY, records),
    (cifar.PYTHON_ARCHIVE, cifar.PYTHON, pickled_by_python_2),
])  # fmt: skip
def test_reads_archives(tmp_path, archive, names, write):
    write_archive(tmp_path / archive, contents(write, names))
    check(cifar.load_cifar10(tmp_path))
    assert os.listdir(tmp_path) == [archive]


def test_a_pickle_runs_no_code(tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made by the pickle"),)

    files = contents(pickled, cifar.PYTHON)
    files["data_batch_1"] = pickle.dumps({"data": Malicious(), "labels": []})
    write_folder(tmp_path / "cifar10", files)
    message = r"data_batch_1 is not a pickled CIFAR-10 batch, .*it asks for posix\.mkdir"
    with pytest.raises(InputError, match=message):
        cifar.load_cifar10(tmp_path)
    assert os.listdir(tmp_path) == ["cifar10"]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy._core.numeric", "_frombuffer"),
        ("_codecs", "encode"),
        ("os", "ndarray"),
        ("numpy.core.os", "system"),
    ],
)
def test_a_pickle_can_name_nothing_else(module, name):
    with pytest.raises(InputError, match=f"it asks for {module}.{name}"):
        cifar._read_pickle("file", f"c{module}\n{name}\n.".encode())


def test_a_pickle_gets_no_array_of_pointers():
    # numpy.ndarray((1,), numpy.dtype("O"), buffer) would follow an address out of the file.
    fake = (
        b"(dVdata\ncnumpy\nndarray\n((I1\ntcnumpy\ndtype\n(VO\ntRVAAAAAAAA\ntRsVlabels\n(lI0\nas."
    )
    _, labels = cifar._BatchUnpickler(io.BytesIO(fake)).load().values()
    assert labels == [0]
    with pytest.raises(InputError, match=r"holds data of shape \(0,\), expected \(4, 3072\)"):
        cifar._read_pickle("file", fake)


def test_column_major_pixels():
    pixels, _ = cifar._read_pickle("file", pickled(np.asfortranarray(PIXELS[0]), LABELS[0]))
    np.testing.assert_array_equal(pixels, PIXELS[0])


GOOD = {"data": PIXELS[0], "labels": LABELS[0].tolist()}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a pickled CIFAR-10 batch, a dictionary with data and labels: EOFError"),
        (b"<html>", "is not a pickled CIFAR-10 batch"),
        (pickled(PIXELS[0], LABELS[0])[:-100], "is not a pickled CIFAR-10 batch"),
        (pickle.dumps([1, 2]), "is not a pickled CIFAR-10 batch"),
        (pickle.dumps({"data": PIXELS[0]}), "is not a pickled CIFAR-10 batch.*'labels'"),
        (
            pickle.dumps(GOOD | {"data": PIXELS[0] / 255}),
            "is not a pickled .* of type f8, expected u1",
        ),
        (
            pickle.dumps(GOOD | {"data": PIXELS[0, 1:]}),
            r"of shape \(3, 3072\), expected \(4, 3072\)$",
        ),
        (pickle.dumps(GOOD | {"labels": [0, 1, 2]}), r"labels have shape \(3,\), expected \(4,\)"),
        (pickle.dumps(GOOD | {"labels": [0, 1, 2, 10]}), "label 3 is 10, expected 0 to 9"),
        (pickle.dumps(GOOD | {"labels": list("abcd")}), "labels are <U1, expected integers"),
    ],
    ids=range(10),
)
def test_names_the_wrong_pickle(tmp_path, data, message):
    write_folder(tmp_path, contents(pickled, cifar.PYTHON) | {"data_batch_3": data})
    with pytest.raises(InputError, match=f"^{tmp_path}/data_batch_3:? .*{message}"):
        cifar.load_cifar10(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", " holds 0 bytes, expected 12292"),
        (records(PIXELS[0], LABELS[0])[:-1], " holds 12291 bytes, expected 12292"),
        (records(PIXELS[0], LABELS[0] + 10), ": label 0 is 1., expected 0 to 9"),
    ],
)
def test_names_the_wrong_record_file(tmp_path, data, message):
    write_folder(tmp_path, contents(records, cifar.BINARY) | {"test_batch.bin": data})
    with pytest.raises(InputError, match=f"^{tmp_path}/test_batch.bin{message}$"):
        cifar.load_cifar10(tmp_path)


def test_damaged_archives(tmp_path):
    path = tmp_path / cifar.BINARY_ARCHIVE
    files = contents(records, cifar.BINARY)
    del files["data_batch_2.bin"]
    write_archive(path, files)
    with pytest.raises(InputError, match=f"^{path} lacks data_batch_2.bin$"):
        cifar.load_cifar10(tmp_path)
    whole = path.read_bytes()
    for damaged in (b"", b"not gzip", whole[: len(whole) // 2], whole[:500] + whole[600:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=f"^{path} is not a whole .tar.gz archive: "):
            cifar.load_cifar10(tmp_path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_records_are_the_images(tmp_path, split):
    write_folder(tmp_path / "cifar-10-batches-bin", contents(records, cifar.BINARY))
    data = cifar.load_cifar10(tmp_path)
    expected = data.train if split == "train" else data.test
    source = cifar.cifar10_records(tmp_path, split)
    source = pickle.loads(pickle.dumps(source))
    assert (len(source), source.classes) == (len(expected.labels), 10)
    backwards = np.arange(len(source))[::-1]
    images, labels = source.gather(backwards)
    assert images.dtype == np.uint8 and labels.dtype == np.int32
    np.testing.assert_array_equal(images, expected.images[::-1])
    np.testing.assert_array_equal(labels, expected.labels[::-1])
    image, label = source[len(source) - 1]
    np.testing.assert_array_equal(image, expected.images[-1])
    assert type(label) is int and label == expected.labels[-1]
    assert len(list(source)) == len(source)  # an index too far ends it
    with pytest.raises(IndexError, match=r"^record -1 of "):
        source[-1]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", " holds 0 bytes, expected 12292"),
        (records(PIXELS[0], LABELS[0] + 10), ": label 0 is 1., expected 0 to 9"),
    ],
)
def test_records_name_the_wrong_file(tmp_path, data, message):
    write_folder(tmp_path, contents(records, cifar.BINARY) | {"data_batch_4.bin": data})
    with pytest.raises(InputError, match=f"^{tmp_path}/data_batch_4.bin{message}$"):
        cifar.cifar10_records(tmp_path)


def test_records_are_not_read_from_pickles(tmp_path):
    write_folder(tmp_path, contents(pickled, cifar.PYTHON))
    with pytest.raises(
        InputError,
        match=f"^{tmp_path}/data_batch_1 cannot be read a record at a time, expected "
        "data_batch_1.bin, .*, test_batch.bin: unpack cifar-10-binary.tar.gz beside it$",
    ):
        cifar.cifar10_records(tmp_path)
