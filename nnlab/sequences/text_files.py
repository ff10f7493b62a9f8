"""Texts and labels from files of lines: tab-separated values, and JSON.

    table = read_table("dev.tsv", ("sentence", "label"))
    texts, labels = table.texts("sentence"), table.labels("label", classes=2)

Columns are found by their names, which the first line of a `.tsv` gives and every line of a
`.jsonl` (JSON lines). A quotation mark in a `.tsv` is a character like others, as in GLUE's files,
where readers of quoted values lose all lines between two of them; `quoted` is for files that do
quote. What is wrong is said in one sentence with the file and the line.
"""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nnlab.errors import InputError
from nnlab.paths import user_path
from nnlab.sequences.text import read_text

Row = tuple[int, dict[str, Any]]  # number of the line, and its values


class Table(NamedTuple):
    """Some columns of a file.

    Attributes:
        path: the file.
        columns: {name: values}, as they are in the file.
        lines: number of the line of each row, from 1.
    """

    path: Path
    columns: dict[str, list[Any]]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.lines)

    def place(self, row: int) -> str:
        """Where a row stands, for errors."""
        return f"{self.path}, line {self.lines[row]}"

    def texts(self, column: str) -> list[str]:
        """Return a column of texts, without blanks around them.

        Raises:
            InputError: one is empty, or no text.
        """
        for row, text in enumerate(self.columns[column]):
            if not isinstance(text, str) or not text.strip():
                shown = "empty" if isinstance(text, str) else f"{text!r:.40}"
                raise InputError(f"{self.place(row)}: {column} is {shown}, expected a text.")
        return [text.strip() for text in self.columns[column]]

    def labels(self, column: str, classes: int | Sequence[str]) -> np.ndarray:
        """Return a column of labels, int32 [rows].

        Args:
            column: its name.
            classes: number of the classes, whose labels are 0 to that less 1; or their names.

        Raises:
            InputError: a label is none of them.
        """
        number = isinstance(classes, int)
        names = list(map(str, range(classes))) if number else list(classes)
        places = {name: place for place, name in enumerate(names)}
        found = [places.get(str(label).strip(), -1) for label in self.columns[column]]
        if -1 in found:
            row = found.index(-1)
            known = f"an integer from 0 to {classes - 1}" if number else ", ".join(names)
            label = self.columns[column][row]
            raise InputError(f"{self.place(row)}: {column} is {label!r:.40}, expected {known}.")
        return np.array(found, np.int32)


def read_table(
    path: str | os.PathLike[str], columns: Sequence[str], *, quoted: bool = False
) -> Table:
    """Read some columns of a file of UTF-8 text; lines that are empty are left out.

    Args:
        path: ends in `.tsv` (a line of names first) or `.jsonl` (an object a line).
        columns: their names.
        quoted: whether values of a `.tsv` may stand in quotation marks, which then may hold tabs,
            line breaks and, doubled, quotation marks.

    Raises:
        InputError: there is no such file, it has another ending, no rows, or is not UTF-8; a column
            is missing, a line has more or fewer values than names, or is no JSON object, or a
            quoted value has no end.
    """
    path = user_path(path)
    readers = {".tsv": _quoted if quoted else _tabs, ".jsonl": _json_lines}
    if path.suffix not in readers:
        raise InputError(f"{path} ends in {path.suffix or 'nothing'}, expected .tsv or .jsonl.")
    values: dict[str, list[Any]] = {name: [] for name in columns}
    lines = []
    for line, row in readers[path.suffix](path, read_text(path)):
        for name in columns:
            if name not in row:
                has = ", ".join(map(repr, row)) or "none"
                raise InputError(f"{path}, line {line}: there is no {name!r}, only {has}.")
            values[name].append(row[name])
        lines.append(line)
    if not lines:
        raise InputError(f"{path} has no rows, expected one or more.")
    return Table(path, values, lines)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), 1):  # `splitlines` knows other breaks too
        if line := line.removesuffix("\r"):
            yield number, line


def _tabs(path: Path, text: str) -> Iterator[Row]:
    rows = ((number, line.split("\t")) for number, line in _lines(text))
    yield from _named(path, rows)


def _quoted(path: Path, text: str) -> Iterator[Row]:
    def rows() -> Iterator[tuple[int, list[str]]]:
        lines = (line + "\n" for line in text.split("\n"))
        reader, first = csv.reader(lines, delimiter="\t", strict=True), 1
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise InputError(
                    f"{path}, line {first}: a quoted value does not end before a tab or the end of "
                    f"a line ({error})."
                ) from error
            if row is None:
                return
            if row:
                yield first, row
            first = reader.line_num + 1

    yield from _named(path, rows())


def _named(path: Path, rows: Iterator[tuple[int, list[str]]]) -> Iterator[Row]:
    first, names = next(rows, (1, []))
    if len(set(names)) < len(names):
        raise InputError(f"{path}, line {first}: two columns have the same name, expected one.")
    for number, values in rows:
        if len(values) != len(names):
            raise InputError(
                f"{path}, line {number}: there are {len(values)} values, expected the "
                f"{len(names)} of {', '.join(map(repr, names))}."
            )
        yield number, dict(zip(names, values, strict=True))


def _json_lines(path: Path, text: str) -> Iterator[Row]:
    for number, line in _lines(text):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            said = getattr(error, "msg", error)  # without a line of its own
            raise InputError(f"{path}, line {number} is no JSON: {said}.") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number} is {line:.40}, expected a JSON object.")
        yield number, row
