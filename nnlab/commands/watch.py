"""Watch a file that grows, and print what is unusual in it as it comes.

    nnlab watch runs/anomaly_series data.csv
    nnlab watch runs/anomaly_logs /var/log/service.log --context 3

RUN is the folder of a run of `experiments/anomaly/anomaly_series.py` (CSV files and JSON lines) or
`experiments/anomaly/anomaly_logs.py` (logs). A line is an anomaly if its score is at least the
threshold that was chosen in training; it is marked with > and shown with the lines around it:

      5838 | 2014-10-30 15:00:00,20032
      5839 | 2014-10-30 15:30:00,19145
    > 5840 | 2014-10-30 16:00:00,4301  score 0.31

The file may grow, be cut short or be replaced (`nnlab.series.following`), and need not be there
yet. What was there before the first watch gets no scores, unless with --from-start. A line is read
when it has its end.

The state of the watch, with all that the network remembers, is saved in RUN after every anomaly,
every ten seconds, and at the end, which may also be a SIGTERM, SIGINT or SIGHUP. The same command
goes on from there, and neither repeats nor leaves out an anomaly. After a kill -9 the lines since
the last save are scored again: no anomaly is lost, and those since then are shown a second time.
Malformed lines are reported on standard error; more than --max-malformed of the last lines end the
watch.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from nnlab.errors import InputError, Interrupted, needs
from nnlab.models import NextEvent, NextValue, load_model
from nnlab.paths import reading, user_path
from nnlab.runs import RunFolder, signals
from nnlab.runs.fields import Count, Fraction, Positive, check_fields
from nnlab.runs.script import run
from nnlab.series import LogDetector, SeriesDetector
from nnlab.series.detector import Detector
from nnlab.series.following import Follower, Line
from nnlab.series.watch_state import (
    WatchState,
    load_watch_state,
    save_watch_state,
    watch_state_path,
)

with needs("runs"):
    import tyro

DETECTORS = {NextValue: SeriesDetector, NextEvent: LogDetector}
LINES = 1024  # read at once
LAST = 1000  # the share of malformed lines is that among so many last ones, up to twice as many
REPORTED = 5  # malformed lines that are reported one by one, and never too many
SAVE_SECONDS = 10.0
WIDTH = 1000  # characters of a line to show


@dataclasses.dataclass(frozen=True)
class Config:
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or the file of the network."""
    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The file to watch."""
    from_start: bool = False
    """At the first watch of the file, score what is there already."""
    forget: bool = False
    """Begin as at the first watch."""
    once: bool = False
    """Stop at the end of the file."""
    threshold: Positive | None = None
    """Score from which a line is an anomaly; by default that of the training."""
    context: Count = 2
    """Lines to show before and after an anomaly."""
    json: bool = False
    """Write JSON objects, one a line."""
    poll: Positive = 0.2
    """Seconds between two looks at the file, at most 3600."""
    max_malformed: Fraction = 0.01
    """Largest share of malformed lines among the last 1,000 or more."""

    def __post_init__(self):
        check_fields(self)
        if self.poll > 3600:
            raise InputError(f"--poll must be at most 3600 seconds, not {self.poll}.")


class Shown(NamedTuple):
    """A line to show, with its score if it is an anomaly."""

    number: int
    text: str
    score: float | None = None
    why: str = ""

    def as_text(self) -> str:
        short = self.text if len(self.text) <= WIDTH else f"{self.text[:WIDTH]}…"
        plain = "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in short)
        if self.score is None:
            return f"  {self.number:>7} | {plain}"
        return f"> {self.number:>7} | {plain}  score {self.score:.3g}  {self.why}".rstrip()

    def as_json(self) -> str:
        fields: dict[str, Any] = {"line": self.number, "text": self.text}
        if self.score is None:
            return json.dumps(fields | {"anomaly": False})
        return json.dumps(fields | {"anomaly": True, "score": self.score, "why": self.why})


@dataclasses.dataclass
class Tally:
    """What this process has read and found."""

    started: float
    lines: int = 0
    anomalies: int = 0
    malformed: int = 0

    def report(self) -> str:
        rate = self.lines / max(time.perf_counter() - self.started, 1e-9)
        return (
            f"{self.lines:,} lines, {self.anomalies:,} anomalies, {self.malformed:,} malformed;"
            f" {rate:,.0f} lines a second."
        )


def load(path: str | os.PathLike[str]) -> tuple[Path, Detector]:
    """Return the network's file in a run folder, or the file itself, and its detector.

    Raises:
        InputError: there is none, it is damaged, or its network cannot watch anything.
    """
    path = user_path(path)
    with reading(path):
        folder, path = path, RunFolder(path).network if path.is_dir() else path
        if path != folder and not path.exists():
            raise InputError(
                f"{folder} holds no {path.name}; expected the folder of a finished run of"
                " experiments/anomaly/anomaly_series.py or anomaly_logs.py."
            )
    saved = load_model(path)
    kind = DETECTORS.get(type(saved.model))
    if kind is None:
        raise InputError(
            f"{path} holds a {type(saved.model).__name__}; expected a network of"
            " experiments/anomaly/anomaly_series.py or anomaly_logs.py."
        )
    return path, kind(saved)


def advance(
    detector: Detector, state: WatchState, lines: Sequence[Line], config: Config, tally: Tally
) -> tuple[WatchState, list[Shown]]:
    """Score lines, report malformed ones, and return what is to be shown."""
    memory, scores = detector.score(state.memory, lines)
    threshold = detector.threshold if config.threshold is None else config.threshold
    recent, after = list(state.recent), state.after
    shown: list[Shown] = []
    counts, malformed = state.lines, state.malformed
    for line, (score, why, wrong) in zip(lines, scores, strict=True):
        text = line.text.decode(errors="replace").rstrip("\r")
        counts, malformed = counts + 1, malformed + bool(wrong)
        if counts >= 2 * LAST:
            counts, malformed = counts // 2, malformed // 2
        if wrong:
            tally.malformed += 1
            if tally.malformed <= REPORTED:
                print(f"line {line.number} {wrong}", file=sys.stderr)
        if score >= threshold:
            shown += [Shown(*each) for each in recent[len(recent) - config.context :]]
            shown.append(Shown(line.number, text, score, why))
            recent, after = [], config.context
            tally.anomalies += 1
        elif after:
            shown.append(Shown(line.number, text))
            after -= 1
        elif config.context:
            recent = [*recent, (line.number, text)][-config.context :]
    tally.lines += len(lines)
    return WatchState(state.position, memory, tuple(recent), after, counts, malformed), shown


def write(shown: Sequence[Shown], config: Config) -> None:
    """Write to standard output, and flush it.

    Raises:
        InputError: nobody reads there any more, or the disk is full.
    """
    try:
        for each in shown:
            print(each.as_json() if config.json else each.as_text())
        sys.stdout.flush()
    except InputError as error:
        raise InputError(f"{error} The same command goes on with what was not shown.") from error


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the path until the end of the block; `InputError` if another process holds it."""
    try:
        lock = path.with_suffix(".lock").open("a")
    except OSError as error:
        raise InputError(f"{path.parent} cannot be written: {error.strerror}.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{path} is in use; expected one watch of a file at a time by a network."
            ) from error
        except OSError:  # a file system without locks
            pass
        yield


def main(config: Config) -> None:
    if sys.__stdout__ is None:
        raise InputError("Standard output is closed, expected a place to write anomalies to.")
    network, detector = load(config.run)
    place = watch_state_path(network, user_path(config.file))
    with alone(place), signals.deferred() as signalled:
        digest = hashlib.sha256(network.read_bytes()).hexdigest()
        if config.forget:
            place.unlink(missing_ok=True)
        try:
            state = load_watch_state(place, detector, digest)
        except InputError as error:
            raise InputError(
                f"{str(error).rstrip('.')}; with --forget the watch begins anew."
            ) from error
        with Follower(config.file, state.position if state else None) as follower:
            if state is None:
                memory = detector.fresh()
                if not config.from_start:
                    if first := follower.read(1):
                        memory = detector.skip(memory, first[0])
                    follower.to_end()
                state = WatchState(follower.position, memory)
            watch(detector, state, follower, signalled, config, (place, digest))


def watch(
    detector: Detector,
    state: WatchState,
    follower: Follower,
    signalled: Any,
    config: Config,
    kept: tuple[Path, str],
) -> None:
    """Watch until a signal or, with --once, the end of the file."""

    def save(state: WatchState) -> float:
        save_watch_state(kept[0], state, detector, kept[1])
        return time.monotonic()

    state = dataclasses.replace(state, position=follower.position)
    saved = save(state)
    tally = Tally(time.perf_counter())
    while True:
        came = signalled()
        lines = [] if came else follower.read(LINES)
        for message in follower.messages:
            print(message, file=sys.stderr)
        follower.messages.clear()
        shown: Sequence[Shown] = ()
        if lines:
            state, shown = advance(detector, state, lines, config, tally)
            write(shown, config)
        state = dataclasses.replace(state, position=follower.position)
        ends = came or (config.once and not lines)
        allowed = max(REPORTED, config.max_malformed * state.lines)
        too_many = state.malformed > allowed
        if shown or ends or too_many or time.monotonic() - saved >= SAVE_SECONDS:
            saved = save(state)
        if too_many:
            raise InputError(
                f"{state.malformed:,} of the last {state.lines:,} lines of {config.file} are"
                f" malformed, expected at most {100 * config.max_malformed:g} %; with a larger"
                " --max-malformed the watch goes on after them."
            )
        if came:
            print(tally.report(), file=sys.stderr)
            raise Interrupted(
                f"stopped by {came.name} after line {state.position.lines} of {config.file};"
                " the same command goes on from there.",
                came,
            )
        if ends:
            break
        if not lines:
            time.sleep(config.poll)
    if not follower.exists:
        raise InputError(f"there is no file {config.file}, expected one with --once.")
    if follower.unfinished:
        print(
            f"{follower.unfinished} bytes of a last line without an end are left.", file=sys.stderr
        )
    print(tally.report(), file=sys.stderr)


if __name__ == "__main__":
    run(main, Config)
