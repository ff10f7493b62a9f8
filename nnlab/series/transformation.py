"""From the columns of a table to what a network reads, the same way every time.

A `Transformation` says which columns a network reads, how each is normalised
(`nnlab.series.normalisers`), with which constants, and on which rows these were fitted. It is
fitted once, saved with the network as JSON, and applied to whole tables or to one row at a time,
which gives the same bits.

Features of numbers are clipped to [-limit, limit], 1e4 unless said otherwise, which keeps one
absurd row from making the state of a network infinite.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Self

import numpy as np

from nnlab.errors import InputError
from nnlab.series.normalisers import NORMALISERS, Normaliser
from nnlab.series.records import read_record
from nnlab.series.rows import Cell, Kind
from nnlab.series.tables import Table, table_of

VERSION = 1
_FLOAT32 = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Transformation:
    """Fitted normalisers.

    Attributes:
        normalisers: in the order of their features.
        rows: the first row on which they were fitted, and the one behind the last.
        window: rows that the network reads together.
        limit: features of numbers are clipped to [-limit, limit].
    """

    normalisers: tuple[Normaliser, ...]
    rows: tuple[int, int]
    window: int = 1
    limit: float = 1e4

    def __post_init__(self):
        start, stop = self.rows
        if not 0 <= start < stop:
            raise InputError(f"rows are {start} to {stop}, expected at least one")
        if self.window < 1:
            raise InputError(f"window is {self.window}, expected at least 1")
        if not 0 < self.limit < _FLOAT32:
            raise InputError(f"limit is {self.limit}, expected a positive finite float32")
        if not self.normalisers:
            raise InputError("a transformation has no columns, expected at least one")
        for name in self.kinds:
            kinds = {each.kind for each in self.normalisers if each.column == name}
            if len(kinds) > 1:
                raise InputError(f"column {name!r} is read as {' and '.join(sorted(kinds))}")

    @property
    def kinds(self) -> dict[str, Kind]:
        """The columns to read and the kind of each, as the readers of `tables` take them."""
        return {each.column: each.kind for each in self.normalisers}

    @property
    def features(self) -> int:
        """Numbers that come out of a row."""
        return sum(each.width for each in self.normalisers)

    def apply(self, table: Table) -> np.ndarray:
        """float32 [n, features] of a whole table.

        Raises:
            InputError: the table lacks a column, has it in another kind, or holds NaN or infinity.
        """
        parts = []
        for each in self.normalisers:
            with np.errstate(over="ignore"):  # clipped
                part = each.apply(_column(table, each.column, each.kind))
            parts.append(part.clip(-self.limit, self.limit) if each.kind == "number" else part)
        return np.concatenate(parts, 1).astype(np.float32)

    def apply_row(self, cells: Mapping[str, Cell]) -> np.ndarray:
        """float32 [features] of one row, bit for bit that of `apply`.

        Raises:
            InputError: the row lacks a column, has it in another kind, or holds NaN or infinity.
        """
        for name, kind in self.kinds.items():
            if name not in cells:
                raise InputError(f"a row has the columns {_listed(cells)}, expected {name!r}")
            if not isinstance(cells[name], _PYTHON[kind]) or isinstance(cells[name], bool):
                raise InputError(f"a row has {name} = {cells[name]!r}, expected a {kind}")
        return self.apply(table_of(self.kinds, [cells]))[0]

    def to_json(self) -> str:
        """All of it as JSON; floats have the digits that give them back exactly."""
        fields = dataclasses.asdict(self)
        fields["normalisers"] = [
            {"normaliser": type(each).__name__} | dataclasses.asdict(each)
            for each in self.normalisers
        ]
        return json.dumps({"version": VERSION} | fields, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` wrote.

        Raises:
            InputError: it is not such a text, or one of another version.
        """
        fields = read_record(text, "transformation", VERSION)
        try:
            normalisers = tuple(_normaliser(each) for each in fields.pop("normalisers"))
            start, stop, window = (_whole(n) for n in [*fields.pop("rows"), fields.pop("window")])
            return cls(normalisers, (start, stop), window, float(fields.pop("limit")))
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{text[:60]!r}… is no transformation: {type(error).__name__} {error}"
            ) from error


def fit_transformation(
    table: Table,
    normalisers: Iterable[tuple[type[Normaliser], str]],
    *,
    rows: tuple[int, int] | None = None,
    window: int = 1,
    limit: float = 1e4,
) -> Transformation:
    """Fits the constants of a transformation.

    Args:
        table: with those columns.
        normalisers: what to do with which column, such as `[(Standardize, "value"), (TimeOfDay,
            "timestamp")]`; a column may come several times.
        rows: the first row to look at and the one behind the last; all if None.
        window: rows that the network reads together.
        limit: features of numbers are clipped to [-limit, limit].

    Raises:
        InputError: the table lacks a column, has it in another kind, or holds NaN or infinity or
            numbers so large that a constant is infinite; or there are no such rows.
    """
    start, stop = rows or (0, len(table))
    if not 0 <= start < stop <= len(table):
        raise InputError(f"rows are {start} to {stop}, expected some of the {len(table)}")
    fitted = []
    for normaliser, name in normalisers:
        values = _column(table, name, normaliser.kind)[start:stop]
        with np.errstate(over="ignore", invalid="ignore"):  # refused by the constructor
            fitted.append(normaliser.fit(name, values))
    return Transformation(tuple(fitted), (start, stop), window, limit)


def windows(features: np.ndarray, window: int) -> np.ndarray:
    """All runs of consecutive rows: [n, …] to [n - window + 1, window, …], a view.

    Raises:
        InputError: there are fewer rows than a window has.
    """
    if len(features) < window:
        raise InputError(f"there are {len(features)} rows, expected at least a window of {window}")
    runs = np.lib.stride_tricks.sliding_window_view(features, window, axis=0)
    return np.moveaxis(runs, -1, 1)


_PYTHON = {"number": float | int, "timestamp": datetime, "text": str}


def _column(table: Table, name: str, kind: Kind) -> np.ndarray:
    if name not in table.kinds:
        raise InputError(f"the table has the columns {_listed(table.kinds)}, expected {name!r}")
    if table.kinds[name] != kind:
        raise InputError(f"column {name!r} is a {table.kinds[name]}, expected a {kind}")
    values = table.columns[name]
    if kind != "text":
        bad = np.isnat(values) if kind == "timestamp" else ~np.isfinite(values)
        if bad.any():
            first = int(np.argmax(bad))
            raise InputError(
                f"row {first} of column {name!r} is {values[first]}, expected a {kind}"
            )
    return values


def _normaliser(fields: dict[str, Any]) -> Normaliser:
    name, column = fields.pop("normaliser"), fields.pop("column")
    if name not in NORMALISERS or not isinstance(column, str):
        raise InputError(f"there is no normaliser {name!r} of {column!r}")
    if "keys" in fields:
        if not all(isinstance(key, str) for key in fields["keys"]):
            raise InputError(f"keys of {column!r} are not all texts")
        fields["keys"] = tuple(fields["keys"])
    else:
        fields = {name: float(value) for name, value in fields.items()}
    return NORMALISERS[name](column, **fields)


def _whole(number: object) -> int:
    if type(number) is not int:
        raise InputError(f"a transformation has {number!r}, expected a whole number")
    return number


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
