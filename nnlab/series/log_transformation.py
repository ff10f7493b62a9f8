"""From the lines of a log to the events that a network reads, the same way every time.

What `nnlab.series.Transformation` is for tables, `LogTransformation` is for logs: it is saved with
the network, and every new line passes through exactly what the lines of training passed through.
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
    """What a line says: the number of its template, and the sessions to which it belongs."""

    number: int
    sessions: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class LogTransformation(Record):
    """How a log becomes sessions of events.

    Attributes:
        log_format: of its lines, as of `nnlab.series.log_rows`; the last field is the content.
        templates: of the contents.
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
        """The event of one line, of which `number` is its number in the file."""
        (row,) = log_rows([line], self.log_format, first_line=number)
        if isinstance(row, Malformed):
            return row
        *_, content = row.cells.values()
        text = str(content)
        return Event(self.templates.event(text), self.sessions(text))

    def sessions(self, content: str) -> tuple[str, ...]:
        """The names of the sessions to which a line belongs, each once."""
        if self.session is None:
            return ("",)
        return tuple(dict.fromkeys(found.group() for found in re.finditer(self.session, content)))
