"""From the columns of a table to what a network reads, the same way every time.

A `Transformation` says which columns a network reads, how each is normalised
(`nnlab.series.normalisers`), with which constants, and on which rows these were fitted. It is
fitted once, saved with the network as JSON, and applied to whole tables or to one row at a time,
which gives the same bits.

Features of numbers are clipped to [-limit, limit], by default 1e4, so that one absurd row cannot
make the state of a network infinite.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from datetime import datetime

import numpy as np

from nnlab.errors import InputError
from nnlab.series.normalisers import Normaliser
from nnlab.series.records import Record
from nnlab.series.rows import Cell, Kind, listed
from nnlab.series.tables import Table, table_of

_FLOAT32 = float(np.finfo(np.float32).max)
_PYTHON = {"number": float | int, "timestamp": datetime, "text": str}


@dataclasses.dataclass(frozen=True)
class Transformation(Record):
    """Fitted normalisers.

    Attributes:
        normalisers: in the order of their features.
        rows: the first row on which they were fitted, and the one after the last.
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
        for each in self.normalisers:
            if (kind := self.kinds[each.column]) != each.kind:
                raise InputError(
                    f"column {each.column!r} is read as {each.kind} and {kind}, expected one kind"
                )

    @property
    def kinds(self) -> dict[str, Kind]:
        """The columns to read and the kind of each, as the readers of `tables` take them."""
        return {each.column: each.kind for each in self.normalisers}

    @property
    def features(self) -> int:
        """How many numbers a row becomes."""
        return sum(each.width for each in self.normalisers)

    def apply(self, table: Table) -> np.ndarray:
        """Turn a whole table into features, float32 [n, features].

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
        """Turn one row into features, float32 [features], with the bits that `apply` gives.

        Raises:
            InputError: the row lacks a column, has it in another kind, or holds NaN or infinity.
        """
        for name, kind in self.kinds.items():
            if name not in cells:
                raise InputError(f"a row has the columns {listed(cells)}, expected {name!r}")
            if not isinstance(cells[name], _PYTHON[kind]) or isinstance(cells[name], bool):
                raise InputError(f"a row has {name} = {cells[name]!r}, expected a {kind}")
        return self.apply(table_of(self.kinds, [cells]))[0]


def fit_transformation(
    table: Table,
    normalisers: Iterable[tuple[type[Normaliser], str]],
    *,
    rows: tuple[int, int] | None = None,
    window: int = 1,
    limit: float = 1e4,
) -> Transformation:
    """Fit the constants of a transformation.

    Args:
        table: with those columns.
        normalisers: what to do with which column, such as `[(Standardize, "value"), (TimeOfDay,
            "timestamp")]`; a column may come several times.
        rows: the first row to look at and the one after the last; all if None.
        window: rows that the network reads together.
        limit: features of numbers are clipped to [-limit, limit].

    Raises:
        InputError: the table lacks a column, has it in another kind, or holds NaN or infinity or
            numbers so large that a constant is infinite; or there are no such rows.
    """
    start, stop = rows or (0, len(table))
    if not 0 <= start < stop <= len(table):
        raise InputError(f"rows are {start} to {stop}, expected some of the {len(table)}")
    with np.errstate(over="ignore", invalid="ignore"):  # the constructors refuse infinity
        fitted = tuple(
            normaliser.fit(name, _column(table, name, normaliser.kind)[start:stop])
            for normaliser, name in normalisers
        )
    return Transformation(fitted, (start, stop), window, limit)


def windows(features: np.ndarray, window: int) -> np.ndarray:
    """All runs of consecutive rows: [n, …] to [n - window + 1, window, …], a view.

    Raises:
        InputError: there are fewer rows than a window has.
    """
    if len(features) < window:
        raise InputError(f"there are {len(features)} rows, expected at least a window of {window}")
    runs = np.lib.stride_tricks.sliding_window_view(features, window, axis=0)
    return np.moveaxis(runs, -1, 1)


def _column(table: Table, name: str, kind: Kind) -> np.ndarray:
    if name not in table.kinds:
        raise InputError(f"the table has the columns {listed(table.kinds)}, expected {name!r}")
    if table.kinds[name] != kind:
        raise InputError(f"column {name!r} is a {table.kinds[name]}, expected a {kind}")
    values = table.columns[name]
    if kind != "text":
        bad = np.isnat(values) if kind == "timestamp" else ~np.isfinite(values)
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(f"row {row} of column {name!r} is {values[row]}, expected a {kind}")
    return values
