"""IDX files: whole, damaged, and the original ones."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnlab.errors import InputError
from nnlab.vision.datasets import mnist

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
IMAGES = np.arange(3 * 2 * 4, dtype=np.uint8).reshape(3, 2, 4)
LABELS = np.array([7, 0, 9], np.uint8)


def idx(array):
    header = np.array([0x800 + array.ndim, *array.shape], ">u4")
    return header.tobytes() + array.astype(np.uint8).tobytes()


def write(folder, contents, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(mnist.RAW, contents, strict=True):
        data = gzip.compress(content, 1) if suffix else content
        (folder / f"{name}{suffix}").write_bytes(data)


@pytest.fixture
def folder(tmp_path):
    """Four good files, for a test to damage one of them."""
    write(tmp_path, [idx(IMAGES), idx(LABELS)] * 2)
    return tmp_path


def load(data_dir):
    return mnist.load_idx(mnist.MNIST, data_dir)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("source", [mnist.MNIST, mnist.FASHION_MNIST], ids=lambda s: s.name)
def test_reads_raw_and_gzipped_files(tmp_path, source, suffix):
    test_images, test_labels = IMAGES[:2] + 1, LABELS[:2]
    contents = map(idx, (IMAGES, LABELS, test_images, test_labels))
    write(tmp_path / source.folders[1], contents, suffix)
    data = mnist.load_idx(source, tmp_path)
    assert (data.name, data.classes) == (source.name, 10)
    assert data.train.images.dtype == np.uint8 and data.train.labels.dtype == np.int32
    np.testing.assert_array_equal(data.train.images, IMAGES[..., None])
    np.testing.assert_array_equal(data.train.labels, LABELS)
    np.testing.assert_array_equal(data.test.images, test_images[..., None])
    np.testing.assert_array_equal(data.test.labels, test_labels)


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)), st.data())
def test_reads_any_size(tmp_path_factory, images, data):
    folder = tmp_path_factory.mktemp("idx")
    labels = data.draw(hnp.arrays(np.uint8, len(images), elements=st.integers(0, 9)))
    write(folder, [idx(images), idx(labels)] * 2)
    train = load(folder).train
    np.testing.assert_array_equal(train.images[..., 0], images)
    np.testing.assert_array_equal(train.labels, labels)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (0, b"", "begins with nothing, expected 00000803, the magic number of an IDX file of rank"),
        (0, idx(LABELS), "begins with 00000801, expected 00000803, the magic number"),
        (1, idx(IMAGES), "begins with 00000803, expected 00000801"),
        (2, b"<html>not here</html>", "begins with 3c68746d, expected 00000803"),
        (0, idx(IMAGES)[:10], "holds 10 bytes, expected a header of 16"),
        (0, idx(IMAGES)[:-1], r"holds 23 bytes of data, expected 24 for shape \(3, 2, 4\)"),
        (3, idx(LABELS) + b"x", r"holds 4 bytes of data, expected 3 for shape \(3,\)"),
        (1, idx(LABELS[:2]), r"labels have shape \(2,\), expected \(3,\), one an image"),
        (1, idx(LABELS + 1), "label 2 is 10, expected 0 to 9"),
        (2, idx(IMAGES[:0]), r"holds images of shape \(0, 2, 4, 1\), expected at least one"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_names_the_wrong_file(folder, file, content, message):
    path = folder / mnist.RAW[file]
    path.write_bytes(content)
    named = folder / mnist.RAW[file - file % 2] if message.startswith("label") else path
    with pytest.raises(InputError, match=f"^{named}:? {message}"):
        load(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"not gzip",
        lambda data: data[: len(data) // 2],
        lambda data: data[:20] + bytes([data[20] ^ 0xFF]) + data[21:],
        lambda data: data[:-8] + bytes(4) + data[-4:],
    ],
    ids=["other format", "truncated", "changed byte", "wrong checksum"],
)
def test_damaged_gzip(tmp_path, damage):
    write(tmp_path, [idx(IMAGES), idx(LABELS)] * 2, ".gz")
    path = tmp_path / mnist.GZIPPED[2]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=f"^{path} is not a whole gzip file: "):
        load(tmp_path)


def test_the_two_data_sets_are_told_apart_by_the_means_of_their_classes(tmp_path):
    """Ten noisy pictures of what one of them looks like, which are no file of either."""
    rng = np.random.default_rng(0)
    sets = {"mnist": mnist.MNIST, "fashion_mnist": mnist.FASHION_MNIST}
    for name, means in mnist.CLASS_MEANS.items():
        blocks = np.array([[int(digit, 16) for digit in each] for each in means]).reshape(10, 7, 7)
        pixels = np.kron(17 * blocks, np.ones((1, 4, 4))) + rng.normal(0, 60, (10, 28, 28))
        images = pixels.clip(0, 255).astype(np.uint8)
        write(tmp_path / name, [idx(images), idx(np.arange(10))] * 2)
        for other, source in sets.items():
            if other == name:
                assert mnist.load_idx(source, tmp_path / name).name == name
                continue
            message = f"^{tmp_path / name} holds {name} or a part of it, expected {other}$"
            with pytest.raises(InputError, match=message):
                mnist.load_idx(source, tmp_path / name)


def test_a_part_of_the_original_mnist_is_not_taken_for_fashion_mnist(original_data, tmp_path):
    whole = load(original_data)
    for part in (slice(10), slice(1000, 1010), np.flatnonzero(whole.train.labels == 3)[:50]):
        images, labels = whole.train.images[part, ..., 0], whole.train.labels[part]
        write(tmp_path, [idx(images), idx(labels)] * 2)
        assert len(load(tmp_path).train.labels) == len(labels)
        with pytest.raises(InputError, match="holds mnist or a part of it, expected fashion_mnist"):
            mnist.load_idx(mnist.FASHION_MNIST, tmp_path)


def test_downloads_the_published_files(tmp_path, server, monkeypatch):
    contents = [idx(IMAGES), idx(LABELS)] * 2
    server.files = {
        name: gzip.compress(content) for name, content in zip(mnist.GZIPPED, contents, strict=True)
    }
    md5 = {name: hashlib.md5(data).hexdigest() for name, data in server.files.items()}
    source = mnist.MNIST._replace(mirrors=(server.url,), md5=md5)
    for _ in range(2):
        np.testing.assert_array_equal(mnist.load_idx(source).train.labels, LABELS)
    assert len(server.seen) == 4
    assert (tmp_path / "cache/nnlab/mnist" / mnist.GZIPPED[0]).exists()


def mean_and_deviation(images):
    counts = sum(np.bincount(some.ravel(), minlength=256) for some in np.array_split(images, 100))
    shares, values = counts / images.size, np.arange(256) / 255
    mean = shares @ values
    return mean, np.sqrt(shares @ (values - mean) ** 2)


def test_original_mnist(original_data):
    data = load(original_data)
    assert data.train.images.shape == (60_000, 28, 28, 1)
    assert data.test.images.shape == (10_000, 28, 28, 1)
    assert data.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert np.bincount(data.train.labels)[:3].tolist() == [5923, 6742, 5958]
    assert mean_and_deviation(data.train.images) == pytest.approx((0.1307, 0.3081), abs=5e-5)
    with pytest.raises(InputError, match="holds mnist or a part of it, expected fashion_mnist"):
        mnist.load_idx(mnist.FASHION_MNIST, original_data / "mnist")


def test_original_mnist_files_are_the_published_ones(original_data):
    for file, md5 in mnist.MNIST.md5.items():
        assert hashlib.md5((original_data / "mnist" / file).read_bytes()).hexdigest() == md5


@pytest.mark.skipif(not DEBIAN.exists(), reason="Debian's dataset-fashion-mnist is not installed")
def test_original_fashion_mnist():
    data = mnist.load_idx(mnist.FASHION_MNIST)
    assert data.train.images.shape == (60_000, 28, 28, 1)
    assert data.test.images.shape == (10_000, 28, 28, 1)
    assert np.bincount(data.train.labels).tolist() == [6000] * 10
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    assert mean_and_deviation(data.train.images) == pytest.approx((0.2860, 0.3530), abs=5e-5)
    with pytest.raises(InputError, match="holds fashion_mnist or a part of it, expected mnist"):
        mnist.load_idx(mnist.MNIST, DEBIAN)
