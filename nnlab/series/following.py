"""Whole lines of a file that grows, is cut short, or is replaced while it is read.

A `Follower` returns the lines that it has not returned before, and its position. What can happen to
a log, and what the follower then does:

=======================================  ========================================================
there is no such file (yet)              returns no lines; looks again at the next read
its last line has no end yet             waits for the end
it gets shorter or begins otherwise      reads it from its beginning ("copytruncate")
another file has its name                reads the rest of the old one, until the new one is not
                                         empty; then a last line without an end counts
it was renamed while nobody followed     finds it by its inode, or a copy by its first bytes, in
                                         the same folder
another file has its name, but begins    reads on, as in one file that is written anew, longer,
with the same `HEAD` bytes               each time
a line has more than `LONGEST` bytes     returns its beginning, marked as cut
a line begins with zero bytes            leaves them out; such a hole comes from a writer that
                                         goes on at its old place after the file was cut short
=======================================  ========================================================

What is cut off before it is read is lost to every reader, as is a file that comes and goes, or is
compressed, between two reads.
"""

import dataclasses
import hashlib
import os
import stat
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

from nnlab.errors import InputError
from nnlab.paths import printable, reason, user_path

LONGEST = 1 << 20  # bytes of a line
HEAD = 1024  # bytes by which a file is known again
_PIECE = 1 << 17


class Line(NamedTuple):
    """A line: its number in its file, from 1, its bytes without the end, and whether it is cut."""

    number: int
    text: bytes
    cut: bool = False


@dataclasses.dataclass(frozen=True)
class Position:
    """The place after a line of a file.

    Attributes:
        inode: the file's; 0 if there was none.
        offset: bytes before it.
        lines: how many lines come before it.
        head: SHA-256 of the first min(`HEAD`, offset) bytes.
    """

    inode: int
    offset: int
    lines: int
    head: str

    @classmethod
    def from_fields(cls, fields: object) -> Self:
        """Read what `dataclasses.asdict` gives.

        Raises:
            InputError: it is something else.
        """
        types = {field.name: field.type for field in dataclasses.fields(cls)}
        if not (
            isinstance(fields, dict)
            and {name: type(value) for name, value in fields.items()} == types
            and min(fields["inode"], fields["offset"], fields["lines"]) >= 0
        ):
            raise InputError(
                f"{fields!r} is no position in a file, expected the fields {', '.join(types)}."
            )
        return cls(**fields)


class _Whole(NamedTuple):
    """A line that has been read: what is kept of it, and how many bytes it has with its end."""

    text: bytes
    size: int
    cut: bool


class Follower:
    """A reader of a file from a position on; use it in `with`, or close it.

    Attributes:
        path: the file.
        messages: what has happened to the file, one sentence each; the reader may empty the list.
    """

    def __init__(self, path: str | os.PathLike[str], position: Position | None = None):
        """Begin at a position, by default at the beginning.

        Raises:
            InputError: the file of the position is there and cannot be read.
        """
        self.path = user_path(path)
        self.messages: list[str] = []
        self._descriptor: int | None = None
        self._start(None)
        if position is None or not position.offset:
            return
        for place in self._places(position.inode):
            if self._goes_on(place, position):
                self._start(place, position.offset, position.lines)
                return
        self.messages.append(f"{self.path} no longer holds what was read of it, and is read anew.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None

    @property
    def position(self) -> Position:
        """The place after the last line that was returned."""
        inode = 0 if self._descriptor is None else os.fstat(self._descriptor).st_ino
        return Position(inode, self._offset, self._lines, hashlib.sha256(self._head).hexdigest())

    @property
    def exists(self) -> bool:
        """Whether there was a file at the last read."""
        return self._descriptor is not None

    @property
    def unfinished(self) -> int:
        """How many bytes have been read of a line that has no end yet."""
        return self._passed + len(self._rest)

    def to_end(self) -> None:
        """Skip all whole lines that are there."""
        while self.read(1000):
            pass

    def read(self, most: int) -> list[Line]:
        """Return the next lines, at most `most`; none if the file has no more for now.

        Raises:
            InputError: the file is there and cannot be read.
        """
        lines: list[Line] = []
        for line in self._available():
            lines.append(line)
            if len(lines) >= most:
                break
        return lines

    def _available(self) -> Iterator[Line]:
        if self._descriptor is None:
            self._start(self.path)
        elif self._is_other():
            yield from self._given()
            self.messages.append(f"{self.path} was cut short, and is read from its beginning.")
            self._start(self.path)
        while self._descriptor is not None:
            yield from self._given()
            if self._read_on():
                continue
            if not self._is_replaced():
                return
            if self._read_on():  # what came until it was
                continue
            if self._goes_on(self.path, self.position):
                self._start(self.path, self._offset, self._lines)
                continue
            if self._rest:
                self._keep(b"\n", end=0)
                yield from self._given()
            self.messages.append(
                f"{self.path} is another file now, and is read from its beginning."
            )
            self._start(self.path)

    def _start(self, path: Path | None, offset: int = 0, lines: int = 0) -> None:
        """Open a file, if there is one, instead of the one before."""
        self.close()
        self._offset, self._lines, self._head = offset, lines, b""
        self._ready: deque[_Whole] = deque()
        self._rest, self._passed, self._cut = b"", 0, False  # of the line without an end
        self._read_to = offset
        if path is not None:
            self._descriptor = _opened(path)
        if self._descriptor is not None:
            self._head = os.pread(self._descriptor, min(HEAD, offset), 0)

    def _read_on(self) -> bool:
        assert self._descriptor is not None
        piece = os.pread(self._descriptor, _PIECE, self._read_to)
        self._read_to += len(piece)
        self._keep(piece)
        return bool(piece)

    def _keep(self, piece: bytes, end: int = 1) -> None:
        """Cut what was read into lines, whose ends have `end` bytes."""
        *whole, rest = (self._rest + piece).split(b"\n")
        for text in whole:
            kept = text.lstrip(b"\0")
            cut = self._cut or len(kept) > LONGEST
            self._ready.append(_Whole(kept[:LONGEST], self._passed + len(text) + end, cut))
            self._passed, self._cut = 0, False
        kept = rest.lstrip(b"\0")
        self._cut |= len(kept) > LONGEST
        self._rest = kept[:LONGEST]
        self._passed += len(rest) - len(self._rest)

    def _given(self) -> Iterator[Line]:
        assert self._descriptor is not None
        while self._ready:
            text, size, cut = self._ready.popleft()
            self._offset += size
            self._lines += 1
            if len(self._head) < HEAD:
                self._head = os.pread(self._descriptor, min(HEAD, self._offset), 0)
            yield Line(self._lines, text, cut)

    def _is_other(self) -> bool:
        """Whether the open file is shorter than what was read of it, or begins otherwise."""
        assert self._descriptor is not None
        if os.fstat(self._descriptor).st_size < self._read_to:
            return True
        return os.pread(self._descriptor, len(self._head), 0) != self._head

    def _is_replaced(self) -> bool:
        """Whether another file, not an empty one, has the name."""
        assert self._descriptor is not None
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror}.") from error
        here = os.fstat(self._descriptor)
        return bool(there.st_size) and not os.path.samestat(there, here)

    def _places(self, inode: int) -> Iterator[Path]:
        """Files that may have been followed: by name, by inode, by how their names begin."""
        yield self.path
        try:
            with os.scandir(self.path.parent) as entries:
                others = [each for each in entries if each.name != self.path.name]
        except OSError:
            return
        yield from (Path(each.path) for each in others if each.inode() == inode)
        yield from (Path(each.path) for each in others if each.name.startswith(self.path.name))

    def _goes_on(self, path: Path, position: Position) -> bool:
        """Whether a file is the one that the position is in, or begins like it."""
        try:
            descriptor = _opened(path)
        except InputError:
            if path == self.path:
                raise
            return False
        if descriptor is None:
            return False
        try:
            here = os.fstat(descriptor)
            head = os.pread(descriptor, min(HEAD, position.offset), 0)
        finally:
            os.close(descriptor)
        known = here.st_ino == position.inode or position.offset >= HEAD
        same = hashlib.sha256(head).hexdigest() == position.head
        return known and same and here.st_size >= position.offset


def _opened(path: Path) -> int | None:
    """A descriptor; None where there is no such file."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} is no regular file, expected one that grows.")
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{printable(path)} cannot be read: {reason(error)}.") from error
