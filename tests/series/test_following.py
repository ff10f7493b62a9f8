"""Following real files: grown, cut short, replaced, half written, and gone on with."""

import dataclasses
import os
import subprocess
import sys
import threading
import time

import pytest

from nnlab.errors import InputError
from nnlab.series.following import (
    HEAD,
    LONGEST,
    Follower,
    Position,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log"


def texts(follower, most=1000):
    """All that is there, line by line."""
    found = []
    while lines := follower.read(most):
        found += [line.text for line in lines]
    return found


def append(path, content):
    with path.open("ab") as file:
        file.write(content)


def numbered(first, last):
    return [b"line %d" % i for i in range(first, last)]


def joined(lines):
    return b"".join(line + b"\n" for line in lines)


def test_lines_with_numbers_as_they_come(path):
    path.write_bytes(b"a\nb\r\n\nhalf")
    with Follower(path) as follower:
        assert follower.read(2) == [(1, b"a", False), (2, b"b\r", False)]
        assert follower.read(2) == [(3, b"", False)]
        assert follower.read(2) == [] and follower.unfinished == 4
        append(path, b" done\nnext\n")
        assert follower.read(9) == [(4, b"half done", False), (5, b"next", False)]
        assert follower.unfinished == 0 and follower.messages == []


def test_a_file_that_is_not_there_yet(path):
    with Follower(path) as follower:
        assert follower.read(9) == [] and not follower.exists
        assert follower.position.inode == 0
        path.write_bytes(b"a\n")
        assert texts(follower) == [b"a"] and follower.exists


def test_any_pieces_of_any_content(path):
    """Against `bytes.split`, however the file is cut into writes and the lines into reads."""
    content = joined(numbered(0, 50)) + b"\xff\xfe\n\r\n" + joined([b"x" * 300_000, b"", b"end"])
    for size in (1, 7, 1000, len(content)):
        path.write_bytes(b"")
        found = []
        with Follower(path) as follower:
            if size == 1:
                follower.path.write_bytes(content[:200])
                found += texts(follower, 3)
                append(path, content[200:])
            else:
                for start in range(0, min(len(content), 50 * size), size):
                    append(path, content[start : start + size])
                    found += texts(follower, 3)
                append(path, content[min(len(content), 50 * size) :])
            found += texts(follower, 3)
        assert found == content.split(b"\n")[:-1]


def test_cut_short_and_written_again(path):
    path.write_bytes(joined(numbered(0, 5)) + b"half")
    with Follower(path) as follower:
        assert texts(follower) == numbered(0, 5)
        path.write_bytes(b"")
        assert texts(follower) == []
        append(path, b"new\n")
        assert follower.read(9) == [(1, b"new", False)]
        assert len(follower.messages) == 1 and "cut short" in follower.messages[0]


def test_cut_short_and_longer_than_before(path):
    """The size says nothing, the beginning does."""
    path.write_bytes(joined(numbered(0, 5)))
    with Follower(path) as follower:
        assert texts(follower) == numbered(0, 5)
        path.write_bytes(joined(numbered(100, 200)))
        assert texts(follower) == numbered(100, 200)


def test_a_hole_of_zeros(path):
    """A writer that knows nothing of the cut goes on at its old place."""
    with path.open("wb", buffering=0) as writer, Follower(path) as follower:
        writer.write(joined(numbered(0, 500)))
        assert texts(follower) == numbered(0, 500)
        os.truncate(path, 0)
        writer.write(joined(numbered(500, 510)))
        assert texts(follower) == numbered(500, 510)
        os.truncate(path, 0)
        writer.seek(50 << 20)
        writer.write(b"far\nand on\n")
        assert texts(follower) == [b"far", b"and on"]


def test_replaced_after_the_rest_was_read(path, tmp_path):
    path.write_bytes(joined(numbered(0, 3)))
    with Follower(path) as follower:
        assert texts(follower) == numbered(0, 3)
        append(path, joined(numbered(3, 5)))
        path.rename(tmp_path / "log.1")
        append(tmp_path / "log.1", joined(numbered(5, 7)))
        assert texts(follower) == numbered(3, 7)  # and there is no file of that name
        path.write_bytes(b"")
        append(tmp_path / "log.1", joined(numbered(7, 8)) + b"last")
        assert texts(follower) == numbered(7, 8)  # whose writer has not changed over yet
        append(path, joined(numbered(8, 10)))
        assert texts(follower) == [b"last", *numbered(8, 10)]
        assert follower.position.lines == 2 and len(follower.messages) == 1


def test_a_file_that_is_written_anew_each_time(path, tmp_path):
    """With more lines after the same beginning: not one comes twice."""
    some = numbered(0, 400)
    path.write_bytes(joined(some[:300]))
    assert path.stat().st_size > HEAD
    with Follower(path) as follower:
        assert texts(follower) == some[:300]
        (tmp_path / "new").write_bytes(joined(some))
        (tmp_path / "new").rename(path)
        assert follower.read(1000) == [(i + 1, some[i], False) for i in range(300, 400)]


def test_a_line_too_long_to_keep(path):
    path.write_bytes(b"a\n" + b"x" * (5 * LONGEST))
    with Follower(path) as follower:
        assert texts(follower) == [b"a"] and follower.unfinished == 5 * LONGEST
        append(path, b"y\nb\n")
        long, short = follower.read(9)
        assert long == (2, b"x" * LONGEST, True) and short == (3, b"b", False)
        assert follower.position.offset == path.stat().st_size


@pytest.mark.parametrize("most", [1, 3, 1000])
def test_goes_on_from_every_position(path, most):
    some = numbered(0, 40)
    path.write_bytes(joined(some))
    with Follower(path) as follower:
        for count in range(0, 41, 8):
            position = follower.position
            assert position == Position.from_fields(dataclasses.asdict(position))
            with Follower(path, position) as second:
                assert texts(second, most) == some[count:] and second.messages == []
            follower.read(8)


def position_after(path, count):
    with Follower(path) as follower:
        assert len(follower.read(count)) == count
        return follower.position


def test_goes_on_in_a_renamed_file(path, tmp_path):
    path.write_bytes(joined(numbered(0, 5)))
    position = position_after(path, 3)
    path.rename(tmp_path / "old-2024-01-01")
    path.write_bytes(joined(numbered(10, 12)))
    with Follower(path, position) as follower:
        assert texts(follower) == numbered(3, 5) + numbered(10, 12)


def test_goes_on_in_a_copy(path, tmp_path):
    """The copy of "copytruncate", which has another inode and is known by its beginning."""
    path.write_bytes(joined(numbered(0, 300)))
    position = position_after(path, 200)
    (tmp_path / "log.1").write_bytes(path.read_bytes())
    path.write_bytes(joined(numbered(500, 502)))
    with Follower(path, position) as follower:
        assert texts(follower) == numbered(200, 300) + numbered(500, 502)


@pytest.mark.parametrize("change", ["shorter", "other", "gone"])
def test_says_so_where_it_cannot_go_on(path, change):
    path.write_bytes(joined(numbered(0, 50)))
    position = position_after(path, 50)
    path.unlink()
    if change != "gone":
        path.write_bytes(joined(numbered(*((0, 2) if change == "shorter" else (60, 200)))))
    with Follower(path, position) as follower:
        assert len(follower.messages) == 1 and "no longer" in follower.messages[0]
        assert len(texts(follower)) == {"shorter": 2, "other": 140, "gone": 0}[change]


def test_to_the_end(path):
    path.write_bytes(b"a\nb\nhalf")
    with Follower(path) as follower:
        follower.to_end()
        append(path, b"\nc\n")
        assert follower.read(9) == [(3, b"half", False), (4, b"c", False)]


def test_what_is_no_file(path, tmp_path):
    path.mkdir()
    with pytest.raises(InputError, match="is no regular file"):
        Follower(path).read(1)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="is no regular file"):  # and does not wait for a writer
        Follower(tmp_path / "fifo").read(1)
    with pytest.raises(InputError, match="null character"):
        Follower("a\0b").read(1)


@pytest.mark.parametrize("fields", [None, {}, {"inode": 1, "offset": -1, "lines": 0, "head": ""}])
def test_what_is_no_position(fields):
    with pytest.raises(InputError, match="no position"):
        Position.from_fields(fields)


WRITER = """
import os, sys
path = sys.argv[1]
file = open(path, "ab", buffering=0)
for i in range(2000):
    text = b"line %d\\n" % i
    file.write(text[:4]); file.write(text[4:])
    if i % 400 == 0:
        sys.stdin.readline()
    if i % 400 == 399:
        os.rename(path, f"{path}.{i}")
        file = open(path, "ab", buffering=0)
"""


def test_a_writer_in_another_process(path):
    """Each line once and in order, through four replacements."""
    command = [sys.executable, "-c", WRITER, str(path)]
    found = []
    deadline = time.monotonic() + 60
    with subprocess.Popen(command, stdin=subprocess.PIPE) as writer, Follower(path) as follower:
        assert writer.stdin is not None
        while len(found) < 2000 and time.monotonic() < deadline:
            lines = follower.read(100)
            found += [line.text for line in lines]
            if any(line.number == 1 for line in lines):  # not two files between two reads
                writer.stdin.write(b"\n")
                writer.stdin.flush()
    assert found == numbered(0, 2000)


def test_a_writer_that_cuts_the_file_short(path):
    """From a thread: no line comes twice or garbled, whatever the moment of the cut."""
    path.write_bytes(b"")
    done = threading.Event()

    def write():
        for i in range(3000):
            append(path, b"line %d\n" % i)
            if i % 500 == 499:
                time.sleep(0.02)
                os.truncate(path, 0)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    found = []
    with Follower(path) as follower:
        while not done.is_set():
            found += [line.text for line in follower.read(100)]
        found += texts(follower)
    thread.join()
    numbers = [int(text.split()[1]) for text in found]
    assert numbers == sorted(set(numbers)) and set(found) <= set(numbered(0, 3000))
    assert len(found) > 1000
