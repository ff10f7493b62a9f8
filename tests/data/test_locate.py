"""Which copy of a data set is taken, and what is said when there is none."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from nnlab.data.locate import Source, locate
from nnlab.errors import InputError

SOURCE = Source(
    name="toy",
    folders=("toy", "Toy/raw"),
    file_sets=(("images", "labels"), ("toy.tar.gz",)),
    mirrors=("http://127.0.0.1:9/",),
    md5={"toy.tar.gz": hashlib.md5(b"archive").hexdigest()},
)


def put(folder, *files):
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file).write_bytes(b"archive")
    return [folder / file for file in files]


@pytest.mark.parametrize("below", ["", "toy", "Toy/raw"])
@pytest.mark.parametrize("files", SOURCE.file_sets)
def test_finds_each_set_in_each_folder(tmp_path, below, files):
    there = put(tmp_path / below, *files)
    assert locate(SOURCE, tmp_path) == there


def test_order_of_the_roots(tmp_path, monkeypatch):
    monkeypatch.setenv("NNLAB_DATA_DIR", str(tmp_path / "environment"))
    cached = put(tmp_path / "cache/nnlab/toy", "images", "labels")
    assert locate(SOURCE, None) == cached
    named = put(tmp_path / "environment", "images", "labels")
    assert locate(SOURCE, None) == named
    given = put(tmp_path / "given/toy", "images", "labels")
    assert locate(SOURCE, tmp_path / "given") == given
    assert locate(SOURCE, str(tmp_path / "given")) == given


def test_a_folder_that_is_given_is_the_only_one(tmp_path, monkeypatch):
    monkeypatch.setenv("NNLAB_DATA_DIR", str(tmp_path / "environment"))
    put(tmp_path / "environment", "images", "labels")
    put(tmp_path / "given/toy", "labels")
    with pytest.raises(InputError) as caught:
        locate(SOURCE, tmp_path / "given")
    assert str(caught.value).startswith(
        f"toy is in none of {tmp_path}/given, {tmp_path}/given/toy (which lacks images), "
        f"{tmp_path}/given/Toy/raw; put images, labels or toy.tar.gz into one of these folders, "
    )


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    there = put(tmp_path / "data", "images", "labels")
    assert locate(SOURCE, "~/data") == there


def test_downloads_what_is_nowhere(tmp_path, server):
    server.files["toy.tar.gz"] = b"archive"
    (found,) = locate(SOURCE._replace(mirrors=(server.url,)), None)
    assert found == tmp_path / "cache/nnlab/toy/toy.tar.gz"
    assert found.read_bytes() == b"archive"


def test_lists_every_folder_and_every_way(tmp_path, monkeypatch):
    monkeypatch.setenv("NNLAB_DATA_DIR", str(tmp_path / "environment"))
    put(tmp_path / "environment/toy", "labels")
    with pytest.raises(InputError) as caught:
        locate(SOURCE, None)
    message = str(caught.value)
    assert message.startswith(f"toy is in none of {tmp_path}/environment, ")
    for place in (
        f"{tmp_path}/environment/toy (which lacks images), ",
        f"{tmp_path}/environment/Toy/raw, ",
        "/usr/share/datasets/toy, ",
        f"{tmp_path}/cache/nnlab/Toy/raw and toy.tar.gz could not be downloaded: ",
    ):
        assert place in message
    assert "http://127.0.0.1:9/toy.tar.gz: " in message
    assert message.endswith(
        "; put images, labels or toy.tar.gz into one of these folders, "
        "or name the folder that holds them with data_dir or NNLAB_DATA_DIR"
    )


def test_a_folder_that_may_not_be_searched_is_not_passed_over(tmp_path, monkeypatch):
    """Or another data set of that name is read without a word."""

    def closed(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "is_file", closed)
    with pytest.raises(InputError, match=f"{tmp_path} cannot be read: Permission denied"):
        locate(SOURCE, tmp_path)


def test_without_a_home_folder_nothing_is_downloaded_into_the_working_folder(tmp_path, monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", "NNLAB_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does then
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no home folder"):
        locate(SOURCE, None)
    assert not list(tmp_path.iterdir())
