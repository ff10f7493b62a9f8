"""Rows with typed cells from CSV and JSON lines, one by one.

A column is a *number* (finite), a *timestamp* (ISO 8601; one with a time zone becomes UTC, one
without is taken as it is) or a *text*. Columns that nobody asks for are not read.

A row is a line. A line that cannot be read as one (cells too many or too few, a number that is none
or is NaN or infinite, broken JSON, bytes that are not UTF-8, a quoted cell that does not end on its
line, nothing at all) is *malformed*: it comes out as a `Malformed` with its line number and what is
wrong with it, among the good rows, so that nothing is dropped unseen. `nnlab.series.tables` reads
whole files.

The functions read no line ahead of the row they give, so that they work on a growing file: pass an
iterator that waits for the next whole line.

References:
    RFC 4180 (CSV), but for line breaks inside quotes; https://jsonlines.org;
    RFC 3339 and ISO 8601 as `datetime.datetime.fromisoformat` reads them.
"""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from nnlab.errors import InputError

Kind = Literal["number", "timestamp", "text"]
Cell = float | datetime | str
_EXPECTED = {"number": "a number", "timestamp": "a timestamp in ISO 8601", "text": "a text"}
BLANK = "is blank"
BOM = b"\xef\xbb\xbf"  # byte order mark


class Row(NamedTuple):
    """A good row: its line, counted from 1, and its cells by column (timestamps are naive)."""

    line: int
    cells: dict[str, Cell]


class Malformed(NamedTuple):
    """A line that is no row: its number, counted from 1, and what is wrong, such as "is blank"."""

    line: int
    reason: str


def csv_rows(
    lines: Iterable[bytes],
    kinds: Mapping[str, Kind],
    *,
    header: Sequence[str] | None = None,
    delimiter: str = ",",
    first_line: int = 1,
    source: object = "the CSV",
) -> Iterator[Row | Malformed]:
    """Read the rows of a CSV file one by one.

    Args:
        lines: with or without their line ends; a byte order mark before the first is ignored.
        kinds: the columns to read and the kind of each.
        header: the names of all columns if `lines` begins after the header.
        delimiter: one character.
        first_line: the number of the first of `lines`.
        source: what the error names.

    Raises:
        InputError: there is no header, it names a column twice or lacks one of `kinds`.
    """
    numbered = enumerate(lines, first_line)
    if header is None:
        number, line = next(numbered, (0, None))
        if line is None:
            raise InputError(f"{source} is empty, expected a header with {listed(kinds)}")
        try:
            header = split_csv(line.removeprefix(BOM), delimiter)
        except ValueError as error:
            raise InputError(f"{source}: the header in line {number} {error}") from error
    names = list(header)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{source} has the column {listed(twice)} more than once, expected once")
    if missing := [name for name in kinds if name not in names]:
        raise InputError(f"{source} has the columns {listed(names)}, expected {listed(missing)}")

    def cells(line: bytes) -> dict[str, Cell]:
        values = split_csv(line, delimiter)
        if len(values) != len(names):
            raise ValueError(f"has {len(values)} cells, expected {len(names)}")
        return _typed(dict(zip(names, values, strict=True)), kinds, in_text=True)

    yield from _rows(numbered, cells)


def json_rows(
    lines: Iterable[bytes], kinds: Mapping[str, Kind], *, first_line: int = 1
) -> Iterator[Row | Malformed]:
    """Read the rows of a file of JSON objects, one a line, one by one.

    Args:
        lines: with or without their line ends; a byte order mark before the first is ignored.
        kinds: the keys to read and the kind of each; timestamps are texts.
        first_line: the number of the first of `lines`.
    """

    def cells(line: bytes) -> dict[str, Cell]:
        text = decoded(line).removeprefix("\ufeff")
        try:  # whole numbers as floats, since those of more than 4,300 digits are an error
            row = json.loads(text, object_pairs_hook=_unique, parse_int=float)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError("is not JSON") from error
        if not isinstance(row, dict):
            raise ValueError(f"is {_shown(row)}, expected a JSON object")
        if missing := [name for name in kinds if name not in row]:
            raise ValueError(f"has the keys {listed(row)}, expected also {listed(missing)}")
        return _typed(row, kinds, in_text=False)

    yield from _rows(enumerate(lines, first_line), cells)


def decoded(line: bytes) -> str:
    """The line without its end; `ValueError` if it holds nothing or is not UTF-8."""
    try:
        text = line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 from byte {error.start + 1} on") from error
    if not text or text.isspace():
        raise ValueError(BLANK)
    return text


def split_csv(line: bytes, delimiter: str = ",") -> list[str]:
    """The cells of a line of CSV as texts; `ValueError` if it is none."""
    try:
        (cells,) = csv.reader([decoded(line)], delimiter=delimiter, strict=True)
    except csv.Error as error:
        raise ValueError(f"is not CSV ({error})") from error
    return cells


def _rows(
    numbered: Iterable[tuple[int, bytes]], cells: Callable[[bytes], dict[str, Cell]]
) -> Iterator[Row | Malformed]:
    for number, line in numbered:
        try:
            yield Row(number, cells(line))
        except ValueError as error:
            yield Malformed(number, str(error))


def _typed(values: Mapping[str, Any], kinds: Mapping[str, Kind], in_text: bool) -> dict[str, Cell]:
    return {name: _cell(name, values[name], kind, in_text) for name, kind in kinds.items()}


def _cell(name: str, value: Any, kind: Kind, in_text: bool) -> Cell:
    expected = _EXPECTED[kind]
    try:
        if kind == "number":
            number = float(value.replace("_", "?")) if in_text else value  # not Python's "1_000"
            if isinstance(number, float):
                if math.isfinite(number):
                    return number
                expected = "a finite number"
        elif kind == "timestamp":
            time = datetime.fromisoformat(value.strip())
            return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
        elif isinstance(value, str):
            value.encode()
            return value
    except UnicodeEncodeError:  # half a character, "\\ud800", which JSON allows
        expected = "a text of whole characters"
    except (AttributeError, ValueError, OverflowError):
        pass
    raise ValueError(f"has {name} = {_shown(value)}, expected {expected}")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("has a key more than once")
    return row


def listed(names: Iterable[str]) -> str:
    """At most 20 names for an error."""
    shown = [_shown(name) for name in names]
    return ", ".join(shown[:20] + ["…"] * (len(shown) > 20)) or "none"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
