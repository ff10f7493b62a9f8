r"""Normalisers: from a column of a table to features, with constants fitted on some of its rows.

==============  ===========================================================================
normaliser      features
==============  ===========================================================================
`Standardize`   (x - mean) / standard deviation                                         (1)
`MinMax`        (x - least) / (greatest - least)                                        (2)
`Log`           (s - mean) / standard deviation of s = sign(x) log(1 + abs(x))          (3)
`Robust`        (x - median) / (third quartile - first quartile)                        (4)
`OneHot`        of a text: 1 at its place among the fitted texts, or at the last place where
                it is not one of them; 0 elsewhere
`Keys`          of a text: its place among the fitted texts, or their number
`TimeOfDay`     of a timestamp: sine and cosine of its share of the day, 0 at midnight
`TimeOfWeek`    of a timestamp: sine and cosine of its share of the week, 0 as Monday begins
==============  ===========================================================================

A column that is constant on the fitted rows is divided by 1, so that later values show in its own
units; where only the quartiles of (4) coincide, by the standard deviation. Outliers do not move (4)
while they are fewer than a quarter of the rows; they move (3) by their order of magnitude, (1) and
(2) by all of their size.

`apply` takes values [n] to float64 [n, width]. Sines and logarithms are computed number by number:
a vectorised one may differ in the last bit with the length of the array.
"""

import dataclasses
import math
import typing
from typing import ClassVar, Self

import numpy as np

from nnlab.errors import InputError
from nnlab.series.records import Record
from nnlab.series.rows import Kind

_DAY = 86_400_000_000  # microseconds
_MONDAY = np.datetime64("1970-01-05", "us")


@dataclasses.dataclass(frozen=True)
class _Normaliser(Record):
    column: str

    def __init_subclass__(cls):
        cls.TAG = {"normaliser": cls.__name__}


@dataclasses.dataclass(frozen=True)
class Scaled(_Normaliser):
    """A normaliser that subtracts `offset` from a number and divides by `scale`."""

    offset: float
    scale: float
    kind: ClassVar[Kind] = "number"
    width: ClassVar[int] = 1

    def __post_init__(self):
        if not (math.isfinite(self.offset) and math.isfinite(self.scale)):
            raise InputError(
                f"column {self.column!r} has the offset {self.offset} and the scale {self.scale},"
                " expected finite ones"
            )
        if not self.scale > 0:
            raise InputError(f"scale of {self.column!r} is {self.scale}, expected more than 0")

    @classmethod
    def fit(cls, column: str, values: np.ndarray) -> Self:
        return cls(column, *cls._constants(values))

    @staticmethod
    def _constants(values: np.ndarray) -> tuple[float, float]:
        """Mean and standard deviation; 1 for the latter where all values are the same."""
        if values.min() == values.max():  # whose computed deviation may be 1e-17
            return float(values[0]), 1.0
        return float(values.mean()), float(values.std()) or 1.0

    def apply(self, values: np.ndarray) -> np.ndarray:
        return ((values - self.offset) / self.scale)[:, np.newaxis]


class Standardize(Scaled):
    """Equation (1)."""


class MinMax(Scaled):
    """Equation (2): from 0 to 1 on the fitted rows."""

    @staticmethod
    def _constants(values: np.ndarray) -> tuple[float, float]:
        low, high = float(values.min()), float(values.max())
        return low, high - low or 1.0


class Robust(Scaled):
    """Equation (4)."""

    @staticmethod
    def _constants(values: np.ndarray) -> tuple[float, float]:
        first, median, third = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
        return median, third - first or Scaled._constants(values)[1]


class Log(Scaled):
    """Equation (3)."""

    @staticmethod
    def _constants(values: np.ndarray) -> tuple[float, float]:
        return Scaled._constants(_signed_log(values))

    def apply(self, values: np.ndarray) -> np.ndarray:
        return super().apply(_signed_log(values))


@dataclasses.dataclass(frozen=True)
class Keys(_Normaliser):
    """The place of a text among `keys`, or their number for any other text."""

    keys: tuple[str, ...]
    kind: ClassVar[Kind] = "text"

    def __post_init__(self):
        if len(set(self.keys)) < len(self.keys):
            raise InputError(f"keys of {self.column!r} hold a text twice, expected each once")

    @classmethod
    def fit(cls, column: str, values: np.ndarray) -> Self:
        return cls(column, tuple(sorted(set(values.tolist()))))

    @property
    def width(self) -> int:
        return 1

    def apply(self, values: np.ndarray) -> np.ndarray:
        return self._places(values).astype(np.float64)[:, np.newaxis]

    def _places(self, values: np.ndarray) -> np.ndarray:
        place = {key: i for i, key in enumerate(self.keys)}
        return np.array([place.get(value, len(place)) for value in values.tolist()], np.int64)


class OneHot(Keys):
    """1 at the place of a text among `keys`, or at the last place for any other text."""

    @property
    def width(self) -> int:
        return len(self.keys) + 1

    def apply(self, values: np.ndarray) -> np.ndarray:
        return np.eye(self.width)[self._places(values)]


@dataclasses.dataclass(frozen=True)
class TimeOfDay(_Normaliser):
    """Sine and cosine of the share of the day."""

    kind: ClassVar[Kind] = "timestamp"
    width: ClassVar[int] = 2
    days: ClassVar[int] = 1

    @classmethod
    def fit(cls, column: str, values: np.ndarray) -> Self:
        return cls(column)

    def apply(self, values: np.ndarray) -> np.ndarray:
        period = self.days * _DAY
        shares = ((values - _MONDAY).astype(np.int64) % period) / period
        angles = [2 * math.pi * share for share in shares.tolist()]
        return np.array([(math.sin(a), math.cos(a)) for a in angles], np.float64).reshape(-1, 2)


class TimeOfWeek(TimeOfDay):
    """Sine and cosine of the share of the week."""

    days: ClassVar[int] = 7


Normaliser = Standardize | MinMax | Log | Robust | Keys | OneHot | TimeOfDay | TimeOfWeek
NORMALISERS: dict[str, type[Normaliser]] = {
    kind.__name__: kind for kind in typing.get_args(Normaliser)
}


def _signed_log(values: np.ndarray) -> np.ndarray:
    return np.array([math.copysign(math.log1p(abs(x)), x) for x in values.tolist()], np.float64)
