"""What a detector makes of a line of a live file, and how what it remembers is kept.

A detector (`SeriesDetector`, `LogDetector`) is made of a saved network and its notes. It goes
through lines in order; its memory is all that one call leaves to the next, a value that `judge`
does not change, so that a caller may throw the result of a call away and do it again. Judging lines
one by one or many at a time gives the same scores.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from nnlab.errors import InputError
from nnlab.series.following import Line

CUT = "is longer than a line may be"


class Judgment(NamedTuple):
    """Of a line.

    Attributes:
        score: nan of what cannot be judged: a header, a malformed line, the first row.
        why: where the score comes from, in a few words.
        malformed: what is wrong with the line, such as "is blank"; empty where nothing is.
    """

    score: float = float("nan")
    why: str = ""
    malformed: str = ""


class Kept(NamedTuple):
    """A memory as a file holds it: JSON and arrays."""

    about: dict[str, Any]
    arrays: dict[str, np.ndarray]


class Detector(Protocol):
    """What `nnlab.commands.watch` asks of a detector."""

    @property
    def threshold(self) -> float:
        """From which score on a line is an anomaly, unless its user knows better."""
        ...

    def fresh(self) -> Any:
        """The memory before the first line."""
        ...

    def judge(self, memory: Any, lines: Sequence[Line]) -> tuple[Any, list[Judgment]]:
        """The memory behind some lines, and the judgment of each.

        Raises:
            InputError: a file begins with a header that is not that of the network's data.
        """
        ...

    def passed_over(self, memory: Any, first: Line) -> Any:
        """The memory where the lines of a file are passed over, of which this is the first.

        Raises:
            InputError: as `judge`.
        """
        ...

    def keep(self, memory: Any) -> Kept:
        """A memory for a file."""
        ...

    def recall(self, kept: Kept) -> Any:
        """A memory from a file.

        Raises:
            InputError: it is not one of this detector's.
        """
        ...


def matching(arrays: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Raises `InputError` unless arrays have the names, shapes and dtypes of the wanted ones."""
    there, expected = (
        {name: f"{array.dtype}{list(array.shape)}" for name, array in each.items()}
        for each in (arrays, wanted)
    )
    if there != expected:
        raise InputError(f"a memory has the arrays {there}, expected {expected}.")
