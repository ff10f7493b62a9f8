"""Watches a file that grows, and tells what is unusual in it as it comes.

    python -m nnlab watch runs/anomaly_series data.csv
    python -m nnlab watch runs/anomaly_logs /var/log/service.log --context 3

RUN is the folder of a run of `experiments/anomaly/anomaly_series.py` (CSV files and JSON lines) or
`experiments/anomaly/anomaly_logs.py` (logs). A line is an anomaly if its score is at least the
threshold that was chosen in training; it is marked with > and stands among the lines around it:

      5838 | 2014-10-30 15:00:00,20032
      5839 | 2014-10-30 15:30:00,19145
    > 5840 | 2014-10-30 16:00:00,4301  score 0.31

The file may grow, be cut short or be replaced (`nnlab.series.following`), and need not be there
yet. What was there before the first watch is not judged, unless with --from-start. A line is read
when it has its end.

Where the watch stands, and what the network remembers, is kept in RUN: after every anomaly, every
ten seconds, and at the end, also by SIGTERM or SIGINT. The same command goes on from there, and
neither repeats nor leaves out an anomaly. After a kill -9 the lines since the last time are judged
again: none is lost, and those since then come a second time. Malformed lines are told on standard
error; more than --max-malformed of the last lines end the watch.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from nnlab.errors import InputError, Interrupted, needs
from nnlab.models import NextEvent, NextValue, load_model
from nnlab.runs import RunFolder, signals
from nnlab.runs.script import (
    check_count,
    check_fraction,
    check_positive,
    run,
)
from nnlab.series import LogDetector, SeriesDetector
from nnlab.series.detector import Detector
from nnlab.series.following import Follower, Line
from nnlab.series.standing import (
    Standing,
    load_standing,
    save_standing,
    standing_path,
)

with needs("runs"):
    import tyro

DETECTORS = {NextValue: SeriesDetector, NextEvent: LogDetector}
LINES = 1024  # that are read at once
LAST = 1000  # the share of malformed lines is that of so many, to twice as many, last ones
TOLD = 5  # malformed lines that are told one by one, and never too many
SAVE_SECONDS = 10.0
WIDTH = 1000  # characters of a line that are shown


@dataclasses.dataclass(frozen=True)
class Config:
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or the file of the network."""
    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The file to watch."""
    from_start: bool = False
    """At the first watch of the file judge what is there already."""
    forget: bool = False
    """Begin as at the first watch."""
    once: bool = False
    """Stop at the end of the file."""
    threshold: float | None = None
    """Score from which on a line is an anomaly; by default that of the training."""
    context: int = 2
    """Lines to show before and after an anomaly."""
    json: bool = False
    """Write JSON objects, one a line."""
    poll: float = 0.2
    """Seconds between two looks at the file."""
    max_malformed: float = 0.01
    """Largest part of the last lines, 1,000 and more, that may be malformed."""

    def __post_init__(self):
        if self.threshold is not None:
            check_positive("threshold", self.threshold)
        check_count("context", self.context)
        check_positive("poll", self.poll)
        check_fraction("max_malformed", self.max_malformed)
        if self.poll > 3600:
            raise InputError(f"--poll must be at most 3600 seconds, not {self.poll}.")


class Shown(NamedTuple):
    """A line to show, with a score if it is an anomaly."""

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
    """Of this process."""

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


def load(path: Path) -> tuple[Path, Detector]:
    """The network's file and its detector, of a run folder or a file.

    Raises:
        InputError: there is none, it is damaged, or its network watches nothing.
    """
    if path.is_dir():
        folder, path = path, RunFolder(path).network
        if not path.exists():
            raise InputError(
                f"{folder} holds no {path.name}; expected the folder of a run that has ended, as of"
                " experiments/anomaly/anomaly_series.py."
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
    detector: Detector, standing: Standing, lines: Sequence[Line], config: Config, tally: Tally
) -> tuple[Standing, list[Shown]]:
    """Judges lines, tells malformed ones, and says what is to be shown."""
    memory, judgments = detector.judge(standing.memory, lines)
    threshold = detector.threshold if config.threshold is None else config.threshold
    recent, after = list(standing.recent), standing.after
    shown: list[Shown] = []
    counts, malformed = standing.lines, standing.malformed
    for line, (score, why, wrong) in zip(lines, judgments, strict=True):
        text = line.text.decode(errors="replace").rstrip("\r")
        counts, malformed = counts + 1, malformed + bool(wrong)
        if counts >= 2 * LAST:
            counts, malformed = counts // 2, malformed // 2
        if wrong:
            tally.malformed += 1
            if tally.malformed <= TOLD:
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
    position = standing.position
    return Standing(position, memory, tuple(recent), after, counts, malformed), shown


def write(shown: Sequence[Shown], config: Config) -> None:
    """To standard output, and out of this process.

    Raises:
        InputError: nobody reads there any more, or the disk is full.
    """
    try:
        for each in shown:
            sys.stdout.write((each.as_json() if config.json else each.as_text()) + "\n")
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer would be tried again at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise InputError(
            f"standard output cannot be written ({error.strerror}); the same command goes on in"
            " front of what it did not show."
        ) from error


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Raises `InputError` if another process holds the path, which it lets go of when it ends."""
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
    if sys.stdout is None:
        raise InputError("standard output is closed, expected a place to write anomalies to.")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    network, detector = load(Path(config.run))
    place = standing_path(network, Path(config.file))
    with alone(place), signals.deferred() as signalled:
        digest = hashlib.sha256(network.read_bytes()).hexdigest()
        if config.forget:
            place.unlink(missing_ok=True)
        try:
            standing = load_standing(place, detector, digest)
        except InputError as error:
            raise InputError(f"{error} With --forget the watch begins anew.") from error
        with Follower(config.file, standing.position if standing else None) as follower:
            if standing is None:
                standing = Standing(follower.position, detector.fresh())
                if not config.from_start:
                    if first := follower.read(1):
                        standing = dataclasses.replace(
                            standing, memory=detector.passed_over(standing.memory, first[0])
                        )
                    follower.to_end()
            watch(detector, standing, follower, signalled, config, (place, digest))


def watch(
    detector: Detector,
    standing: Standing,
    follower: Follower,
    signalled: Any,
    config: Config,
    kept: tuple[Path, str],
) -> None:
    """The loop, until a signal or, with --once, the end of the file."""

    def save(standing: Standing) -> float:
        save_standing(kept[0], standing, detector, kept[1])
        return time.monotonic()

    standing = dataclasses.replace(standing, position=follower.position)
    saved = save(standing)
    tally = Tally(time.perf_counter())
    while True:
        came = signalled()
        lines = [] if came else follower.read(LINES)
        for told in follower.told:
            print(told, file=sys.stderr)
        follower.told.clear()
        shown: Sequence[Shown] = ()
        if lines:
            standing, shown = advance(detector, standing, lines, config, tally)
            write(shown, config)
        standing = dataclasses.replace(standing, position=follower.position)
        ends = came or (config.once and not lines)
        allowed = max(TOLD, config.max_malformed * standing.lines)
        too_many = standing.malformed > allowed
        if shown or ends or too_many or time.monotonic() - saved >= SAVE_SECONDS:
            saved = save(standing)
        if too_many:
            raise InputError(
                f"{standing.malformed:,} of the last {standing.lines:,} lines of {config.file} are"
                f" malformed, expected at most {100 * config.max_malformed:g} %; with a larger"
                " --max-malformed the watch goes on behind them."
            )
        if came:
            print(tally.report(), file=sys.stderr)
            raise Interrupted(
                f"stopped by {came.name} behind line {standing.position.lines} of {config.file};"
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
        print(f"{follower.unfinished} bytes of a line without an end are left.", file=sys.stderr)
    print(tally.report(), file=sys.stderr)


if __name__ == "__main__":
    run(main, Config)
