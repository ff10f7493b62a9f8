"""The face of a detector of anomalies in a live file, and the scores that it gives to lines.

A detector (`SeriesDetector`, `LogDetector`) is made of a saved network and its notes. It takes
lines in order. Its memory is all that one call leaves to the next, a value that `score` does not
change, so that a caller may throw the result of a call away and make the call again. Lines get the
same scores one by one as many at a time.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from nnlab.errors import InputError
from nnlab.series.following import Line

CUT = "is longer than a line may be"


class LineScore(NamedTuple):
    """What a detector says of a line.

    Attributes:
        score: larger is more anomalous; nan where there is nothing to score: a header, a malformed
            line, the first row.
        why: where the score comes from, in a few words.
        malformed: what is wrong with the line, such as "is blank"; empty if nothing is.
    """

    score: float = float("nan")
    why: str = ""
    malformed: str = ""


class SavedMemory(NamedTuple):
    """A memory as a file holds it: JSON and arrays."""

    about: dict[str, Any]
    arrays: dict[str, np.ndarray]


class Detector(Protocol):
    """What `nnlab.commands.watch` asks of a detector."""

    @property
    def threshold(self) -> float:
        """The score from which a line is an anomaly, unless the user gives another."""
        ...

    def fresh(self) -> Any:
        """Return the memory before the first line."""
        ...

    def score(self, memory: Any, lines: Sequence[Line]) -> tuple[Any, list[LineScore]]:
        """Return the memory after some lines, and the score of each.

        Raises:
            InputError: a file begins with a header that does not fit the network's data.
        """
        ...

    def skip(self, memory: Any, first: Line) -> Any:
        """Return the memory after a file whose lines are skipped; `first` is its first line.

        Raises:
            InputError: as `score`.
        """
        ...

    def to_arrays(self, memory: Any) -> SavedMemory:
        """Return a memory as a file holds it."""
        ...

    def from_arrays(self, saved: SavedMemory) -> Any:
        """Return the memory that `to_arrays` took apart.

        Raises:
            InputError: it is not a memory of this detector.
        """
        ...


def matching(arrays: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Raise `InputError` unless arrays have the names, shapes and dtypes of the wanted ones."""
    there, expected = (
        {name: f"{array.dtype}{list(array.shape)}" for name, array in each.items()}
        for each in (arrays, wanted)
    )
    if there != expected:
        raise InputError(f"a memory has the arrays {there}, expected {expected}.")
