"""Whole tables from CSV files and files of JSON lines, with typed columns.

`nnlab.series.rows` says what a row is, and which lines are malformed. Reading a whole file counts
the malformed lines, keeps the first few, and refuses the file if their share is too large.
"""

import contextlib
import dataclasses
import gzip
import itertools
import os
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from nnlab.errors import InputError
from nnlab.paths import reading, user_path
from nnlab.series.rows import (
    BLANK,
    DELIMITERS,
    Cell,
    Dialect,
    Kind,
    Malformed,
    Row,
    csv_rows,
    dialect_of,
    json_rows,
)

SHOWN = 5
_SAMPLE = 1000  # lines that tell how a file is written
_PLAIN = Dialect()
_DTYPES = {"number": "float64", "timestamp": "datetime64[us]", "text": object}


@dataclasses.dataclass(frozen=True)
class Table:
    """A whole file.

    Attributes:
        kinds: the kind of each column.
        columns: the n values of each column: float64 for numbers, datetime64[us] for timestamps,
            Python texts (dtype object) for texts.
        malformed: how many lines were no rows.
        first_malformed: at most five of them.
        dialect: how the file is written, if it is a CSV file.
    """

    kinds: Mapping[str, Kind]
    columns: Mapping[str, np.ndarray]
    malformed: int = 0
    first_malformed: tuple[Malformed, ...] = ()
    dialect: Dialect = _PLAIN

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def report(self) -> str:
        """One line on what was read: "4,030 rows, 2 malformed lines: line 7 is blank; …"."""
        return f"{len(self):,} rows, {_report(self.malformed, self.first_malformed)}"


def read_csv(
    path: str | os.PathLike[str],
    kinds: Mapping[str, Kind],
    *,
    delimiter: str | None = None,
    decimal: str | None = None,
    max_malformed: float = 0.01,
) -> Table:
    """Read a whole CSV file with a header.

    Args:
        path: the file, UTF-8; it may be gzipped, whatever its name.
        kinds: the columns to read and the kind of each.
        delimiter: one character; by default a comma, a semicolon, a tab or a vertical bar, as the
            header tells.
        decimal: the decimal mark, "." or ","; by default as the first rows tell
            (`nnlab.series.rows.dialect_of`).
        max_malformed: the largest share of malformed lines; the header and blank lines at the end
            do not count.

    Raises:
        InputError: there is no such file, it is empty, has no rows or too many malformed ones, or
            its header names a column twice or lacks one.
    """
    with opened(path) as lines:
        first = list(itertools.islice(lines, _SAMPLE))
        choice = [each for each in DELIMITERS if each != decimal]
        form = dialect_of(first, kinds, choice if delimiter is None else [delimiter])
        form = form if decimal is None else form._replace(decimal=decimal)
        every = itertools.chain(first, lines)
        rows = csv_rows(every, kinds, **form._asdict(), source=path, zones={})
        return dataclasses.replace(gathered(rows, kinds, max_malformed, path), dialect=form)


def read_json_lines(
    path: str | os.PathLike[str], kinds: Mapping[str, Kind], *, max_malformed: float = 0.01
) -> Table:
    """Read a whole file of JSON objects, one a line; arguments and errors are `read_csv`'s."""
    with opened(path) as lines:
        return gathered(json_rows(lines, kinds, zones={}), kinds, max_malformed, path)


def table_of(kinds: Mapping[str, Kind], rows: Sequence[Mapping[str, Cell]]) -> Table:
    """Make a table of good rows."""
    columns = {
        name: np.array([row[name] for row in rows], _DTYPES[kind]) for name, kind in kinds.items()
    }
    return Table(kinds, columns)


def gathered(
    rows: Iterable[Row | Malformed], kinds: Mapping[str, Kind], max_malformed: float, source: object
) -> Table:
    """Make a table of the rows of a whole file."""
    good: list[dict[str, Cell]] = []
    malformed: list[Malformed] = []
    last = 0
    for row in rows:
        if isinstance(row, Row):
            good.append(row.cells)
            last = row.line
        else:
            malformed.append(row)
    while malformed and malformed[-1].line > last and malformed[-1].reason == BLANK:
        malformed.pop()
    if not (good or malformed):
        raise InputError(f"{source} holds no rows, expected at least one")
    first, share = tuple(malformed[:SHOWN]), len(malformed) / (len(good) + len(malformed))
    if not (good and share <= max_malformed):
        raise InputError(
            f"{source} holds {len(good):,} rows and {_report(len(malformed), first)}; expected at"
            f" most {100 * max_malformed:g} % malformed"
        )
    return Table(kinds, table_of(kinds, good).columns, len(malformed), first)


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Iterator[bytes]]:
    """Open a file for reading, and yield its lines; one that is gzipped is decompressed.

    Raises:
        InputError: there is none, or it cannot be read to its end.
    """
    path = user_path(path)
    with reading(path), open(path, "rb", opener=_opened_at_once) as file:
        zipped = file.peek(2)[:2] == b"\x1f\x8b"
        try:
            yield iter(gzip.GzipFile(fileobj=file) if zipped else file)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(f"{path} is not a whole gzip file: {error}.") from error


def _opened_at_once(path: str, flags: int) -> int:
    """Open a file for `open`; a pipe that nobody writes to is empty, and does not wait for ever."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if stat.S_ISCHR(os.fstat(descriptor).st_mode):  # such as /dev/zero, which has no end
        os.close(descriptor)
        raise InputError(f"{path} is a device, expected a file.")
    os.set_blocking(descriptor, True)
    return descriptor


def _report(malformed: int, first: Sequence[Malformed]) -> str:
    lines = f"{malformed:,} malformed line{'' if malformed == 1 else 's'}"
    shown = "; ".join(f"line {line} {reason}" for line, reason in first)
    return f"{lines}{': ' if first else ''}{shown}{'; …' if malformed > len(first) else ''}"
