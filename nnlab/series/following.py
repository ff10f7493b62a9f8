"""Whole lines of a file that grows, is cut short, or is replaced while it is read.

A `Follower` gives the lines that it has not given before, and says where it stands. What befalls a
log, and what is done about it:

=======================================  ========================================================
there is no such file (yet)              nothing to read; it is looked for at the next read
its last line has no end yet             the line waits for it
it gets shorter or begins otherwise      it is read from its beginning ("copytruncate")
another file has its name                the rest of the old one first, until the new one is not
                                         empty; a line without an end at its end counts
it was renamed while nobody followed     it is found by its inode, or a copy by its first bytes,
                                         in the same folder
another file has its name, but begins    it is read on, as one that is written anew, longer, each
with the same `HEAD` bytes               time
a line has more than `LONGEST` bytes     its beginning is given, marked as cut
a line begins with zero bytes            they are left out; such a hole is where the writer of a
                                         file that was cut short goes on at the old place
=======================================  ========================================================

What is cut off before it was read is lost to every reader, as is a file that came and went, or was
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
    """Behind a line of a file.

    Attributes:
        inode: of the file; 0 if there was none.
        offset: in bytes.
        lines: that come before.
        head: SHA-256 of the first min(`HEAD`, offset) bytes.
    """

    inode: int
    offset: int
    lines: int
    head: str

    @classmethod
    def from_fields(cls, fields: object) -> Self:
        """Reads what `dataclasses.asdict` gives.

        Raises:
            InputError: it is something else.
        """
        types = {field.name: field.type for field in dataclasses.fields(cls)}
        if not (
            isinstance(fields, dict)
            and {name: type(value) for name, value in fields.items()} == types
            and min(fields["inode"], fields["offset"], fields["lines"]) >= 0
        ):
            raise InputError(f"{fields!r} is no position in a file, expected {', '.join(types)}.")
        return cls(**fields)


class _Whole(NamedTuple):
    """A line that has been read: what is kept of it, and its bytes with the end."""

    text: bytes
    size: int
    cut: bool


class Follower:
    """Reads a file from a position on; in `with`, or to be closed.

    Attributes:
        path: of the file.
        told: what has happened to it, in sentences; whoever has read them may empty the list.
    """

    def __init__(self, path: str | os.PathLike[str], position: Position | None = None):
        """At a position, by default at the beginning.

        Raises:
            InputError: the file of the position is there and cannot be read.
        """
        self.path = Path(path)
        self.told: list[str] = []
        self._descriptor: int | None = None
        self._start(None)
        if position is None or not position.offset:
            return
        for place in self._places(position.inode):
            if self._goes_on(place, position):
                self._start(place, position.offset, position.lines)
                return
        self.told.append(f"{self.path} is no longer what was read of it, and read anew.")

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
        """Behind the last line that was given."""
        inode = 0 if self._descriptor is None else os.fstat(self._descriptor).st_ino
        return Position(inode, self._offset, self._lines, hashlib.sha256(self._head).hexdigest())

    @property
    def exists(self) -> bool:
        """Whether there was a file at the last read."""
        return self._descriptor is not None

    @property
    def unfinished(self) -> int:
        """Bytes that were read of a line that has no end yet."""
        return self._passed + len(self._rest)

    def to_end(self) -> None:
        """Goes behind the last whole line that is there."""
        while self.read(1000):
            pass

    def read(self, most: int) -> list[Line]:
        """Lines that are there, at most so many; none at the end, for now.

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
            self.told.append(f"{self.path} was cut short, and is read from its beginning.")
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
            self.told.append(f"{self.path} is another file, and read from its beginning.")
            self._start(self.path)

    def _start(self, path: Path | None, offset: int = 0, lines: int = 0) -> None:
        """Opens a file, if there is one, in place of the one before."""
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
        """Cuts what was read into lines, whose ends have `end` bytes."""
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
        """Whether the open file no longer begins with, or holds, what was read of it."""
        assert self._descriptor is not None
        if os.fstat(self._descriptor).st_size < self._read_to:
            return True
        return os.pread(self._descriptor, len(self._head), 0) != self._head

    def _is_replaced(self) -> bool:
        """Whether another file that is not empty has the name."""
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
        """Where a file of that inode may be now: its name, its inode, names that begin like it."""
        yield self.path
        try:
            with os.scandir(self.path.parent) as entries:
                others = [each for each in entries if each.name != self.path.name]
        except OSError:
            return
        yield from (Path(each.path) for each in others if each.inode() == inode)
        yield from (Path(each.path) for each in others if each.name.startswith(self.path.name))

    def _goes_on(self, path: Path, position: Position) -> bool:
        """Whether a file is the one of the position, or begins like it."""
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
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read: {reason}.") from error
