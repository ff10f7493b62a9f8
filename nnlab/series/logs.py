"""Plain log text: lines to rows, events to sessions.

A format says what the lines of a log begin with, as loghub writes it:

    <Date> <Time> <Pid> <Level> <Component>: <Content>

Only the last field, the rest of the line, may hold white space. A line that does not fit is
malformed, as in `nnlab.series.rows`; `nnlab.series.templates` turns contents into events. A session
is the sequence of events that name the same thing, such as a block or a request.

References:
    Zhu et al., Tools and benchmarks for automated log parsing, ICSE-SEIP 2019,
    https://github.com/logpai/loghub: the format.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nnlab.data.batches import check_shape
from nnlab.errors import InputError
from nnlab.series.rows import (
    Kind,
    Malformed,
    Row,
    decoded,
)
from nnlab.series.tables import Table, gathered, opened

HDFS_FORMAT = "<Date> <Time> <Pid> <Level> <Component>: <Content>"
HDFS_BLOCK = r"blk_-?\d+"


def log_rows(
    lines: Iterable[bytes], log_format: str, *, first_line: int = 1
) -> Iterator[Row | Malformed]:
    """Read the rows of a log one by one; their cells are texts. Reads no line ahead.

    Args:
        lines: UTF-8, with or without their line ends and byte order marks. Where a few bytes of a
            line are none, they become U+FFFD.
        log_format: such as `HDFS_FORMAT`.
        first_line: the number of the first of `lines`.

    Raises:
        InputError: the format has no field, or one twice, or one that is no Python name.
    """
    pattern = re.compile(_expression(log_format))
    for number, line in enumerate(lines, first_line):
        try:
            match = pattern.fullmatch(decoded(line, lenient=True))
        except ValueError as error:
            yield Malformed(number, str(error))
            continue
        if match:
            yield Row(number, dict(match.groupdict()))
        else:
            yield Malformed(number, f"is not of the format {log_format}")


def read_log(
    path: str | os.PathLike[str], log_format: str, *, max_malformed: float = 0.01
) -> Table:
    """Read a whole log into columns of texts; arguments and errors are `read_csv`'s."""
    kinds: dict[str, Kind] = {name: "text" for name in _fields(log_format)}
    with opened(path) as lines:
        return gathered(log_rows(lines, log_format), kinds, max_malformed, path)


def sessions_by_name(
    contents: Iterable[str], events: Iterable[int], name: str
) -> tuple[dict[str, list[int]], int]:
    """Gather the events of each name, such as each block.

    Args:
        contents: lines.
        events: one a line.
        name: a regular expression that finds the names in a line. A line with several belongs to
            each of them, once.

    Returns:
        The events of each name, names in the order in which they first come; and the number of
        lines without a name, which are in no session.

    Raises:
        InputError: there is not one event a line.
    """
    contents, events = list(contents), list(events)
    check_shape("events", events, [len(contents)])
    pattern = re.compile(name)
    sessions: dict[str, list[int]] = {}
    nameless = 0
    for content, event in zip(contents, events, strict=True):
        names = dict.fromkeys(match.group() for match in pattern.finditer(content))
        nameless += not names
        for each in names:
            sessions.setdefault(each, []).append(event)
    return sessions, nameless


class Windows(NamedTuple):
    """The events of some sessions, each with those before it.

    Attributes:
        before: int32 [n, window], the last events before; -1 where there were none.
        next: int32 [n], the event, or `end` where the session ends.
        session: int32 [n], the number of its session.
    """

    before: np.ndarray
    next: np.ndarray
    session: np.ndarray


def next_event_windows(
    sessions: Iterable[Sequence[int]], window: int, end: int | None = None
) -> Windows:
    """Cut sessions into windows: every event with the `window` events before it.

    Args:
        sessions: events, numbers from 0.
        window: at least 1.
        end: an event to append to every session; none if None.

    Raises:
        InputError: there are no events.
    """
    last = [] if end is None else [end]
    each = [np.array([*session, *last], np.int32) for session in sessions]
    lengths = [len(events) for events in each]
    if not sum(lengths):
        raise InputError("the sessions hold no events, expected at least one")
    blank = np.full(window, -1, np.int32)
    before = [
        np.lib.stride_tricks.sliding_window_view(np.concatenate([blank, events[:-1]]), window)
        for events in each
        if len(events)
    ]
    numbers = np.repeat(np.arange(len(each), dtype=np.int32), lengths)
    return Windows(np.concatenate(before), np.concatenate(each), numbers)


def _fields(log_format: str) -> list[str]:
    names = re.findall("<([^<>]*)>", log_format)
    if not names or len(set(names)) < len(names) or not all(map(str.isidentifier, names)):
        raise InputError(
            f"the format {log_format!r} has the fields {', '.join(names) or 'none'};"
            " expected at least one, each once, in letters, digits and underscores"
        )
    return names


def _expression(log_format: str) -> str:
    """The format as a regular expression: any white space matches any other."""
    names = _fields(log_format)
    expression = ""
    for part in re.split("(<[^<>]*>)", log_format):
        name = part[1:-1]
        if part != f"<{name}>":
            expression += r"\s+".join(map(re.escape, re.split(r"\s+", part)))
        else:
            expression += f"(?P<{name}>.*)" if name == names[-1] else rf"(?P<{name}>\S+?)"
    return expression
