"""Plain log text: lines to rows, events to sessions.

What the lines of a log begin with is written as its maintainers write it,

    <Date> <Time> <Pid> <Level> <Component>: <Content>

A field holds no white space but the last, which is the rest of the line. A line that does not fit
is malformed, as in `nnlab.series.rows`; `nnlab.series.templates` turns contents into events.

A session is the sequence of events that belong together: those that name the same thing (a block,
a request), or, where a log has no such names, a sliding window.

References:
    The format is that of Zhu et al., Tools and benchmarks for automated log parsing, ICSE-SEIP
    2019, https://github.com/logpai/loghub.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

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
    """The rows of a log, one by one; their cells are texts. Reads no line ahead.

    Args:
        lines: UTF-8, with or without their line ends.
        log_format: such as `HDFS_FORMAT`.
        first_line: the number of the first of `lines`.

    Raises:
        InputError: the format has no field, or one twice, or one that is no Python name.
    """
    pattern = re.compile(_expression(log_format))
    for number, line in enumerate(lines, first_line):
        try:
            match = pattern.fullmatch(decoded(line))
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
    """Reads a whole log into columns of texts; arguments and errors as of `read_csv`."""
    kinds: dict[str, Kind] = {name: "text" for name in _fields(log_format)}
    with opened(path) as lines:
        return gathered(log_rows(lines, log_format), kinds, max_malformed, path)


def sessions_by_name(
    contents: Iterable[str], events: Iterable[int], name: str
) -> tuple[dict[str, list[int]], int]:
    """Gathers the events of each name, such as each block.

    Args:
        contents: lines.
        events: one a line.
        name: a regular expression that finds the names in a line. A line with several belongs to
            each of them, once.

    Returns:
        The events of each name, names in the order in which they first come, and the number of
        lines that hold none and so are in no session.
    """
    pattern = re.compile(name)
    sessions: dict[str, list[int]] = {}
    nameless = 0
    for content, event in zip(contents, events, strict=True):
        names = dict.fromkeys(match.group() for match in pattern.finditer(content))
        nameless += not names
        for each in names:
            sessions.setdefault(each, []).append(event)
    return sessions, nameless


def sliding_sessions(events: Sequence[int], length: int, stride: int) -> list[Sequence[int]]:
    """Runs of `length` events that begin every `stride` events; the last ends with the events.

    Raises:
        InputError: `stride` is not from 1 to `length`, so that events would be in no session.
    """
    if not 1 <= stride <= length:
        raise InputError(f"stride is {stride}, expected from 1 to the length, {length}")
    last = max(len(events) - length, 0)
    starts = [*range(0, last, stride), last] if events else []
    return [events[start : start + length] for start in starts]


class Windows(NamedTuple):
    """What came before each event of some sessions, and the event itself.

    Attributes:
        before: int32 [n, window], the last of the events before; -1 where there were none.
        next: int32 [n], the event, or what `end` says where the session ends.
        session: int32 [n], its session.
    """

    before: np.ndarray
    next: np.ndarray
    session: np.ndarray


def next_event_windows(
    sessions: Iterable[Sequence[int]], window: int, end: int | None = None
) -> Windows:
    """Every event of every session with the `window` events before it.

    Args:
        sessions: events, numbers from 0.
        window: at least 1.
        end: an event that is put at the end of every session; none if None.

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
