"""From the lines of a log to the events that a network reads, the same way every time.

`LogTransformation` is for logs what `nnlab.series.Transformation` is for tables: it is saved with
the network, and treats every new line exactly as it treated the lines of the training.
"""

import dataclasses
import re
from typing import NamedTuple

from nnlab.errors import InputError
from nnlab.series.logs import log_rows
from nnlab.series.records import Record
from nnlab.series.rows import Malformed
from nnlab.series.templates import Templates


class Event(NamedTuple):
    """The number of a line's template, and the sessions to which the line belongs."""

    number: int
    sessions: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class LogTransformation(Record):
    """How a log becomes sessions of events.

    Attributes:
        log_format: the format of its lines (`nnlab.series.logs`); the last field is the content.
        templates: the templates of the contents.
        session: a regular expression that finds the names of a line's sessions in its content;
            None if the log is one session, whose name is empty.
        window: events that the network reads together.
    """

    log_format: str
    templates: Templates
    session: str | None = None
    window: int = 10

    def __post_init__(self):
        if self.window < 1:
            raise InputError(f"window is {self.window}, expected at least 1")
        try:
            re.compile(self.session or "")
        except re.error as error:
            raise InputError(f"{self.session!r} is no regular expression: {error}") from error
        next(log_rows([], self.log_format), None)  # checks the format

    def apply_line(self, line: bytes, number: int = 1) -> Event | Malformed:
        """Return the event of one line; `number` is the number of the line in its file."""
        (row,) = log_rows([line], self.log_format, first_line=number)
        if isinstance(row, Malformed):
            return row
        *_, content = row.cells.values()
        text = str(content)
        return Event(self.templates.event(text), self.sessions(text))

    def sessions(self, content: str) -> tuple[str, ...]:
        """Return the names of the sessions to which a line belongs, each once."""
        if self.session is None:
            return ("",)
        return tuple(dict.fromkeys(found.group() for found in re.finditer(self.session, content)))
