"""Whole tables from CSV files and files of JSON lines, with typed columns.

What a row is, and which lines are malformed, is said in `nnlab.series.rows`. A whole read counts
the malformed lines, keeps the first few, and refuses the file where they are more than a given
share.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from nnlab.errors import InputError
from nnlab.series.rows import (
    BLANK,
    Cell,
    Kind,
    Malformed,
    Row,
    csv_rows,
    json_rows,
)

SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Table:
    """A whole file.

    Attributes:
        kinds: the kind of each column.
        columns: for each column its n values: float64 for numbers, datetime64[us] for timestamps,
            Python texts (dtype object) for texts.
        malformed: how many lines were no rows.
        first_malformed: at most five of them.
    """

    kinds: Mapping[str, Kind]
    columns: Mapping[str, np.ndarray]
    malformed: int = 0
    first_malformed: tuple[Malformed, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def report(self) -> str:
        """One line on what was read: "4,030 rows, 2 malformed lines: line 7 is blank; …"."""
        told = _told(self.malformed, self.first_malformed)
        return f"{len(self):,} rows, {told}"


def read_csv(
    path: str | os.PathLike[str],
    kinds: Mapping[str, Kind],
    *,
    delimiter: str = ",",
    max_malformed: float = 0.01,
) -> Table:
    """Reads a whole CSV file with a header.

    Args:
        path: the file, UTF-8.
        kinds: the columns to read and the kind of each.
        delimiter: one character.
        max_malformed: the largest share of malformed lines, those of the header and blank lines at
            the end left out.

    Raises:
        InputError: there is no such file, it is empty, has no rows or too many malformed ones, or
            its header names a column twice or lacks one.
    """
    with opened(path) as lines:
        rows = csv_rows(lines, kinds, delimiter=delimiter, source=path)
        return gathered(rows, kinds, max_malformed, path)


def read_json_lines(
    path: str | os.PathLike[str], kinds: Mapping[str, Kind], *, max_malformed: float = 0.01
) -> Table:
    """Reads a whole file of JSON objects, one a line; arguments and errors as of `read_csv`."""
    with opened(path) as lines:
        return gathered(json_rows(lines, kinds), kinds, max_malformed, path)


def table_of(kinds: Mapping[str, Kind], rows: Iterable[Mapping[str, Cell]]) -> Table:
    """Good rows as a table."""
    columns: dict[str, list[Cell]] = {name: [] for name in kinds}
    for row in rows:
        for name, values in columns.items():
            values.append(row[name])
    return Table(kinds, {name: _array(values, kinds[name]) for name, values in columns.items()})


def gathered(
    rows: Iterable[Row | Malformed], kinds: Mapping[str, Kind], max_malformed: float, source: object
) -> Table:
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
    first = tuple(malformed[:SHOWN])
    share = len(malformed) / (len(good) + len(malformed))
    if not (good and share <= max_malformed):
        raise InputError(
            f"{source} holds {len(good):,} rows and {_told(len(malformed), first)}; expected at"
            f" most {100 * max_malformed:g} % malformed"
        )
    return dataclasses.replace(
        table_of(kinds, good), malformed=len(malformed), first_malformed=first
    )


def _array(values: list[Cell], kind: Kind) -> np.ndarray:
    dtypes = {"number": "float64", "timestamp": "datetime64[us]", "text": object}
    return np.array(values, dtypes[kind])


def opened(path: str | os.PathLike[str]):
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _told(malformed: int, first: Sequence[Malformed]) -> str:
    lines = f"{malformed:,} malformed line{'' if malformed == 1 else 's'}"
    if not malformed:
        return lines
    shown = "; ".join(f"line {line} {reason}" for line, reason in first)
    return f"{lines}: {shown}{'; …' if malformed > len(first) else ''}"
