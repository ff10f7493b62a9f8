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
    RFC 3339 and ISO 8601 as `datetime.datetime.fromisoformat` reads them, and 24:00.
"""

import contextlib
import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from nnlab.errors import InputError

Kind = Literal["number", "timestamp", "text"]
Cell = float | datetime | str
_EXPECTED = {"number": "a number", "timestamp": "a timestamp in ISO 8601", "text": "a text"}
BLANK = "is blank"
DELIMITERS = (",", ";", "\t", "|")
_LENIENT = 0.1  # share of the characters of a line that may be replaced
_COMMA = re.compile(r"\s*[+-]?[0-9]+,[0-9]+([eE][+-]?[0-9]+)?\s*")  # a number with a decimal comma
# `fromisoformat` takes any character between date and time, so that it reads the zone of a date,
# 2024-12-31-05:00, as a time of day and some counts of milliseconds as dates; and any fraction as
# one of a second, where ISO 8601 means that of the last number.
_STAMP = re.compile(
    r"([0-9]{4}-?(?:[0-9]{2}-?[0-9]{2}|W[0-9]{2}(?:-?[0-9])?))"
    r"(?:[Tt_ \t]([0-9]{2})(:?[0-9]{2}(?::?[0-9]{2}(?:[.,][0-9]+)?)?)?"
    r"( ?(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2}(?::?[0-9]{2})?)?))?)?"
)
_THOUSANDS = re.compile(r"\s*[+-]?[0-9]{1,3},[0-9]{3}\s*")


class Dialect(NamedTuple):
    """How a CSV file is written: what separates cells, and the decimal mark, "." or ","."""

    delimiter: str = ","
    decimal: str = "."


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
    decimal: str = ".",
    first_line: int = 1,
    source: object = "the CSV",
    zones: dict[str, bool] | None = None,
) -> Iterator[Row | Malformed]:
    """Read the rows of a CSV file one by one.

    Args:
        lines: with or without their line ends; a byte order mark before one is ignored.
        kinds: the columns to read and the kind of each.
        header: the names of all columns if `lines` begins after the header.
        delimiter: one character.
        decimal: the decimal mark of numbers, "." or ",".
        first_line: the number of the first of `lines`.
        source: what the error names.
        zones: whether the timestamps of a column have a time zone; those that differ are malformed.
            Columns that are not in it are entered with their first timestamp. By default a column
            may have both.

    Raises:
        InputError: the delimiter or the decimal mark is none, there is no header, it names a column
            twice or lacks one of `kinds`.
    """
    _check(Dialect(delimiter, decimal))
    numbered = enumerate(lines, first_line)
    if header is None:
        number, line = next(numbered, (0, None))
        if line is None:
            raise InputError(f"{source} is empty, expected a header with {listed(kinds)}")
        try:
            header = split_csv(line, delimiter)
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
        if decimal == ",":
            places = [i for i, name in enumerate(names) if kinds.get(name) == "number"]
            for i in places:
                values[i] = _with_point(values[i], names[i])
        return _typed(dict(zip(names, values, strict=True)), kinds, zones, in_text=True)

    yield from _rows(numbered, cells)


def json_rows(
    lines: Iterable[bytes],
    kinds: Mapping[str, Kind],
    *,
    first_line: int = 1,
    zones: dict[str, bool] | None = None,
) -> Iterator[Row | Malformed]:
    """Read the rows of a file of JSON objects, one a line, one by one.

    Args:
        lines: with or without their line ends; a byte order mark before one is ignored.
        kinds: the keys to read and the kind of each; timestamps are texts.
        first_line: the number of the first of `lines`.
        zones: as for `csv_rows`.
    """

    def cells(line: bytes) -> dict[str, Cell]:
        text = decoded(line)
        try:  # whole numbers as floats, since those of more than 4,300 digits are an error
            row = json.loads(text, object_pairs_hook=_unique, parse_int=float)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError("is not JSON") from error
        if not isinstance(row, dict):
            raise ValueError(f"is {_shown(row)}, expected a JSON object")
        if missing := [name for name in kinds if name not in row]:
            raise ValueError(f"has the keys {listed(row)}, expected also {listed(missing)}")
        return _typed(row, kinds, zones, in_text=False)

    yield from _rows(enumerate(lines, first_line), cells)


def dialect_of(
    lines: Sequence[bytes], kinds: Mapping[str, Kind], delimiters: Sequence[str] = DELIMITERS
) -> Dialect:
    """Tell how a CSV file is written by its first lines.

    The delimiter is the first with which the header has all columns of `kinds`. The
    decimal mark is a comma if that separates no cells, no number among them has a point and some
    have one comma. Such as 1,234 could also be thousands; only after semicolons, which are what
    programs write where the comma is the decimal mark, these count too.

    Args:
        lines: the header and some rows.
        kinds: the columns to read and the kind of each.
        delimiters: those to choose from.

    Raises:
        InputError: one of `delimiters` is none.
    """
    rows: list[list[str]] = []
    delimiter = ""
    for delimiter in delimiters:
        _check(Dialect(delimiter))
        rows = list(_split(lines, delimiter))
        if rows and kinds.keys() <= set(rows[0]):
            break
    else:
        return Dialect(delimiters[0])
    places = [i for i, name in enumerate(rows[0]) if kinds.get(name) == "number"]
    cells = [row[i] for row in rows[1:] if len(row) == len(rows[0]) for i in places]
    commas = [cell for cell in cells if _COMMA.fullmatch(cell)]
    sure = delimiter == ";" or not all(map(_THOUSANDS.fullmatch, commas))
    comma = delimiter != "," and commas and sure and not any("." in cell for cell in cells)
    return Dialect(delimiter, "," if comma else ".")


def _split(lines: Iterable[bytes], delimiter: str) -> Iterator[list[str]]:
    for line in lines:
        with contextlib.suppress(ValueError):
            yield split_csv(line, delimiter)


def _check(dialect: Dialect) -> None:
    delimiter, decimal = dialect
    if len(delimiter) != 1 or delimiter in '\r\n"\0' or decimal not in (".", ","):
        raise InputError(
            f"the delimiter is {delimiter!r} and the decimal mark {decimal!r}, expected one"
            " character, and a point or a comma."
        )
    if delimiter == decimal:
        raise InputError(f"{delimiter!r} is both delimiter and decimal mark, expected two.")


def _with_point(cell: str, name: str) -> str:
    if "." in cell:
        raise ValueError(f"has {name} = {_shown(cell)}, expected a number with a decimal comma")
    return cell.replace(",", ".")


def decoded(line: bytes, *, lenient: bool = False) -> str:
    """The line without its end and without a byte order mark.

    Args:
        line: UTF-8.
        lenient: replace bytes that are not UTF-8 by U+FFFD if they are few among the others.

    Raises:
        ValueError: it holds nothing or is not UTF-8.
    """
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text = line.decode("utf-8-sig", "replace")
        if not lenient or text.count("\ufffd") > _LENIENT * len(text):
            raise ValueError(f"is not UTF-8 from byte {error.start + 1} on") from error
    text = text.rstrip("\r\n")
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


def _typed(
    values: Mapping[str, Any],
    kinds: Mapping[str, Kind],
    zones: dict[str, bool] | None,
    *,
    in_text: bool,
) -> dict[str, Cell]:
    zones = {} if zones is None else zones
    return {name: _cell(name, values[name], kind, zones, in_text) for name, kind in kinds.items()}


def _cell(name: str, value: Any, kind: Kind, zones: dict[str, bool], in_text: bool) -> Cell:
    expected = _EXPECTED[kind]
    try:
        if kind == "number":
            number = float(value.replace("_", "?")) if in_text else value  # not Python's "1_000"
            if isinstance(number, float):
                if math.isfinite(number):
                    return number
                expected = "a finite number"
        elif kind == "timestamp":
            time = _time(value.strip())
            has_zone = time.tzinfo is not None
            if zones.setdefault(name, has_zone) == has_zone:
                return time.astimezone(UTC).replace(tzinfo=None) if has_zone else time
            expected = f"a timestamp {'without' if has_zone else 'with'} a time zone, as above"
        elif isinstance(value, str):
            value.encode()
            return value
    except UnicodeEncodeError:  # half a character, "\\ud800", which JSON allows
        expected = "a text of whole characters"
    except (AttributeError, ValueError, OverflowError):
        pass
    raise ValueError(f"has {name} = {_shown(value)}, expected {expected}")


def _time(text: str) -> datetime:
    match = _STAMP.fullmatch(text)
    if match is None:
        raise ValueError("not ISO 8601")
    day, hour, rest, zone = match.groups(default="")
    days = int(hour == "24" and not rest.strip("0:.,"))
    clock = f"T{'00' if days else hour}{rest}{zone.strip().upper()}" if hour else ""
    return datetime.fromisoformat(day + clock) + timedelta(days)


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
