"""Downloads over a real connection, to a server on this machine that breaks on request."""

import hashlib
import os
import socket
import time

import pytest

from nnlab.data.download import fetch
from nnlab.errors import InputError

BODY = bytes(range(256)) * 1000
MD5 = hashlib.md5(BODY).hexdigest()


@pytest.fixture
def target(tmp_path, server):
    server.files["set.gz"] = BODY
    return tmp_path / "cache" / "set.gz"


def test_downloads_once(server, target):
    for _ in range(2):
        fetch([server.url + "set.gz"], MD5, target)
    assert target.read_bytes() == BODY
    assert server.seen == ["set.gz"]
    assert os.listdir(target.parent) == ["set.gz"]


def test_a_broken_connection_leaves_nothing_and_the_next_mirror_is_asked(server, target):
    server.cuts = [100_000]
    with pytest.raises(InputError, match=r"^set\.gz could not be downloaded: http://127.*gz: \S"):
        fetch([server.url + "set.gz"], MD5, target)
    assert os.listdir(target.parent) == []
    server.cuts = [100_000]
    fetch([server.url + "set.gz"] * 2, MD5, target)
    assert target.read_bytes() == BODY


def test_wrong_bytes_leave_nothing(server, target):
    server.files["set.gz"] = BODY[::-1]
    message = f"set.gz served a file whose MD5 is not the published {MD5}$"
    with pytest.raises(InputError, match=message):
        fetch([server.url + "set.gz"], MD5, target)
    assert os.listdir(target.parent) == []


def test_a_file_in_the_cache_with_the_wrong_hash_is_replaced(server, target):
    target.parent.mkdir()
    target.write_bytes(b"damaged")
    fetch([server.url + "set.gz"], MD5, target)
    assert target.read_bytes() == BODY


def test_gives_the_reason_of_every_mirror(server, target):
    urls = [server.url + "a.gz", server.url + "b.gz"]
    with pytest.raises(InputError, match=r"a\.gz: 404.*; .*b\.gz: 404"):
        fetch(urls, MD5, target)


def test_no_network_is_found_out_at_once(target):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(InputError, match="Connection refused"):
        fetch([f"http://127.0.0.1:{port}/set.gz"], MD5, target)
    assert time.monotonic() - start < 5


def test_a_cache_that_cannot_be_written(server, target):
    target.parent.write_text("a file where the folder should be")
    with pytest.raises(InputError, match=f"Not a directory: '{target.parent}/"):
        fetch([server.url + "set.gz"], MD5, target)
