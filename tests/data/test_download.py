"""Downloads over a real connection, to a server on this machine that breaks on request."""

import hashlib
import io
import os
import socket
import sys
import threading
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


def left_over(target):
    return sorted(os.listdir(target.parent))


def test_downloads_once(server, target):
    for _ in range(2):
        fetch([server.url + "set.gz"], MD5, target)
    assert target.read_bytes() == BODY
    assert server.seen == [("set.gz", None)]
    assert left_over(target) == ["set.gz", "set.gz.lock"]


def test_goes_on_where_the_connection_broke(server, target):
    server.cuts = [100_000, 50_000]
    fetch([server.url + "set.gz"], MD5, target)
    assert target.read_bytes() == BODY
    first, second = 100_000 // 4096 * 4096, 50_000 // 4096 * 4096  # what arrived in whole chunks
    ranges = [None, f"bytes={first}-", f"bytes={first + second}-"]
    assert [wanted for _, wanted in server.seen] == ranges
    assert left_over(target) == ["set.gz", "set.gz.lock"]


def test_goes_on_where_another_process_was_stopped(server, target):
    target.parent.mkdir()
    (target.parent / "set.gz.part").write_bytes(BODY[:1234])
    fetch([server.url + "set.gz"], MD5, target)
    assert target.read_bytes() == BODY
    assert server.seen == [("set.gz", "bytes=1234-")]


def test_a_part_that_is_the_whole_file_is_not_downloaded_again(server, target):
    target.parent.mkdir()
    (target.parent / "set.gz.part").write_bytes(BODY)
    fetch([server.url + "set.gz"], MD5, target)
    assert target.read_bytes() == BODY


def test_a_server_that_ignores_ranges_sends_everything_again(server, target):
    server.cuts, server.ranges = [100_000], False
    fetch([server.url + "set.gz"], MD5, target)
    assert target.read_bytes() == BODY
    assert len(server.seen) == 2


def test_gives_up_where_nothing_more_comes_and_keeps_what_came(server, target):
    server.cuts, server.ranges = [100_000] * 10, False
    with pytest.raises(InputError, match=r"^set\.gz could not be downloaded: http://127"):
        fetch([server.url + "set.gz"], MD5, target)
    assert len(server.seen) == 2
    assert (target.parent / "set.gz.part").read_bytes() == BODY[: 100_000 // 4096 * 4096]
    assert not target.exists()


def test_wrong_bytes_leave_nothing(server, target):
    server.files["set.gz"] = BODY[::-1]
    message = f"set.gz served a file whose MD5 is not the published {MD5}$"
    with pytest.raises(InputError, match=message):
        fetch([server.url + "set.gz"], MD5, target)
    assert left_over(target) == ["set.gz.lock"]


def test_a_part_of_something_else_costs_one_failure(server, target):
    target.parent.mkdir()
    (target.parent / "set.gz.part").write_bytes(b"something else")
    with pytest.raises(InputError, match="MD5 is not the published"):
        fetch([server.url + "set.gz"], MD5, target)
    fetch([server.url + "set.gz"], MD5, target)
    assert target.read_bytes() == BODY


def test_a_file_in_the_cache_with_the_wrong_hash_is_replaced(server, target):
    target.parent.mkdir()
    target.write_bytes(b"damaged")
    fetch([server.url + "set.gz"], MD5, target)
    assert target.read_bytes() == BODY


def test_takes_the_next_mirror(server, target):
    fetch([server.url + "missing.gz", server.url + "set.gz"], MD5, target)
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
    with pytest.raises(InputError, match=r"cache cannot be written: File exists$"):
        fetch([server.url + "set.gz"], MD5, target)


def test_two_at_once_download_one_copy(server, target):
    threads = [
        threading.Thread(target=fetch, args=([server.url + "set.gz"], MD5, target))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == BODY
    assert len(server.seen) == 1


@pytest.mark.parametrize("terminal", [True, False])
def test_shows_a_bar_on_a_terminal_only(server, target, monkeypatch, terminal):
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", screen)
    fetch([server.url + "set.gz"], MD5, target)
    assert ("100%" in screen.getvalue()) == terminal
