"""The folder of one run: what was asked, how it went, and what came out.

================  ==================================================================
config.json       the configuration, written first
metrics.jsonl     one JSON object a line: network, step and its figures
tensorboard/      the finite ones as TensorBoard events, one sub-folder a network
csv/, wandb/      what loggers have written (`nnlab.runs.loggers`)
checkpoints/      training states (`nnlab.runs.checkpoints`)
measures.json     of each trained network, what its test says (`nnlab.runs.evaluating`)
curves.png        learning curves, from some scripts
network.*         `network.safetensors`, the trained network, of several the best one
networks/         each trained network by its name (`nnlab.runs.networks`)
result.json       the result, written last; it is there whole or not at all
report.html       the report (`nnlab.figures.report`)
================  ==================================================================

JSON has no NaN and no infinity, so these are the strings `"nan"`, `"inf"` and `"-inf"` in all
files, which Python's `float` reads back.
"""

import contextlib
import dataclasses
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from nnlab.errors import InputError, needs
from nnlab.paths import printable, reading, reason, user_path, writing
from nnlab.runs import hosts

_WRITTEN = (
    *("metrics.jsonl", "tensorboard", "csv", "wandb", "checkpoints", "networks"),
    *("curves.png", "network.safetensors", "result.json", "report.html", "measures.json"),
)
# Left by a kill while writing.
_PARTIAL = tuple(
    f"{name}.partial" for name in ("config.json", "result.json", "metrics.jsonl", "measures.json")
)
ASIDE = ("out", "data_dir", "overwrite", "resume")  # fields on which no result depends
_LOCK = ".lock"
_locks: dict[int, IO[str]] = {}  # the locks that this process holds, by inode


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run folder that exists; `RunFolder.create` makes one, `RunFolder(path)` opens one again.

    Attributes:
        path: the folder.
        resume: whether trainings in it continue from their newest checkpoints.
        notes: what the files of its networks say beside the networks.
    """

    path: Path
    resume: bool = False
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", user_path(self.path))

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        config: Any,
        overwrite: bool = False,
        resume: bool = False,
        may_differ: Collection[str] = (),
        reasons: Mapping[str, str] | None = None,
    ) -> "RunFolder":
        """Make the folder `path`, missing parents too, and write `config` into it.

        No other process can use the folder until this one ends or releases it. If several processes
        train as one, process 0 makes the folder and writes; an error is raised in all of them.

        Args:
            path: a new or empty folder, or that of an earlier run to overwrite or resume; `~` is
                the home folder.
            config: a dataclass instance; values that are not numbers, strings, lists or mappings
                are written as their `str`.
            overwrite: remove what an earlier run wrote into the folder. Other files in it stay.
            resume: continue the run in the folder, if there is one.
            may_differ: fields of the configuration that may differ when a run is resumed, besides
                `out`, `data_dir`, `overwrite` and `resume`. A sentence on standard error says
                what has changed. `epochs` may only grow.
            reasons: why other fields may not differ, by their names.

        Raises:
            InputError: the folder holds a run and neither `overwrite` nor `resume` is true, or
                both are; it holds other files but no run; the run to resume has another
                configuration; another process uses the folder; it cannot be written; or
                processes that train as one have different configurations.
        """
        if overwrite and resume:
            raise InputError("--overwrite and --resume were both given, expected at most one.")

        def make() -> None:
            folder = user_path(path)
            try:
                found = _check_free(folder, overwrite or resume)
                folder.mkdir(parents=True, exist_ok=True)
                _lock(folder)
                if resume and found:
                    if changed := _changes(folder / "config.json", config, may_differ, reasons):
                        print(f"{folder} goes on: {', '.join(changed)}.", file=sys.stderr)
                        _write_json(folder / "config.json", dataclasses.asdict(config))
                else:
                    for name in (*_WRITTEN, *_PARTIAL):
                        _remove(folder / name)
                    _write_json(folder / "config.json", dataclasses.asdict(config))
            except InputError:
                raise
            except OSError as error:
                raise InputError(
                    f"The run folder {printable(path)} cannot be written: {reason(error)}."
                ) from error

        hosts.check_same({f.name: getattr(config, f.name) for f in dataclasses.fields(config)})
        hosts.by_writer(make)
        return cls(user_path(path), resume)

    def release(self) -> None:
        """Let other processes use the folder; the system does so when this process ends."""
        if (lock := self.path / _LOCK).exists() and (file := _locks.pop(lock.stat().st_ino, None)):
            file.close()

    @property
    def checkpoints(self) -> Path:
        """The folder for checkpoints, which the first one that is saved makes."""
        return self.path / "checkpoints"

    @property
    def curves(self) -> Path:
        """The file for learning curves (`nnlab.figures.plots.figure_curves`)."""
        return self.path / "curves.png"

    @property
    def network(self) -> Path:
        """The file of the trained network, of several the best one (`nnlab.models.load_model`)."""
        return self.path / "network.safetensors"

    @property
    def networks(self) -> Path:
        """The folder for the files of all trained networks."""
        return self.path / "networks"

    @property
    def report(self) -> Path:
        """The file for the report."""
        return self.path / "report.html"

    @contextlib.contextmanager
    def metrics(self, network: str, after: int | None = None) -> Iterator[Callable[..., None]]:
        """Open `metrics.jsonl` and the TensorBoard events of one network for appending.

        With `after`, lines of that network about later steps are dropped first, in TensorBoard too:
        a resumed training writes them again.

            with folder.metrics("CNN") as record:
                record(step=100, loss=0.31, accuracy=0.91)

        Each call appends one line, which the operating system has when the call returns;
        TensorBoard's events follow within ten seconds. A step is an integer and a figure a number;
        either may be an array of shape [].

        Raises:
            InputError: the file cannot be written; so does the call.
        """
        with needs("runs"):
            from tensorboardX import SummaryWriter

        if not hosts.is_writer():
            yield lambda **figures: None
            return
        file = self.path / "metrics.jsonl"
        with writing(file):
            if after is not None:
                _drop_lines(file, network, after)
            logdir = str(self.path / "tensorboard" / network)
            purge = None if after is None else after + 1
            events = SummaryWriter(logdir, purge_step=purge, flush_secs=10)
            lines = file.open("a")
        with events, lines:

            def record(*, step: int, **figures: Any) -> None:
                line = {"network": network, "step": step} | figures
                with writing(file):
                    lines.write(json.dumps(_plain(line), allow_nan=False) + "\n")
                    lines.flush()
                for name, value in figures.items():
                    if math.isfinite(value):  # tensorboardX warns of others on standard error
                        events.add_scalar(name, float(value), int(step))

            yield record

    def measures(self) -> dict[str, Any]:
        """Return what the tests say of the networks trained so far, by name, in their order.

        Raises:
            InputError: the file cannot be read.
        """
        file = self.path / "measures.json"
        with reading(file):
            return json.loads(file.read_text()) if file.exists() else {}

    def add_measures(self, network: str, measures: Mapping[str, Any]) -> None:
        """Add those of a network, or replace them.

        Raises:
            InputError: the file cannot be written.
        """
        if hosts.is_writer():
            with writing(self.path / "measures.json"):
                found = self.measures() | {network: measures}
                _write_json(self.path / "measures.json", found, indent=None)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write `result.json` whole, in place of an earlier one of the same run.

        Args:
            result: a mapping of names to numbers, strings, arrays, and lists and mappings of these.

        Raises:
            InputError: it cannot be written.
        """
        if hosts.is_writer():
            with writing(self.path / "result.json"):
                _write_json(self.path / "result.json", result)


def _check_free(path: Path, expect_run: bool) -> bool:
    """Return whether the folder holds a run; raise if one was not expected."""
    found = {entry.name for entry in path.iterdir()} if path.exists() else set()
    found.discard(_LOCK)
    others = sorted(found.difference(_WRITTEN, _PARTIAL))
    if others and "config.json" not in found:
        raise InputError(
            f"{path} holds {others[0]} but no config.json, so it is not a run folder and not even "
            "--overwrite writes there; expected a new or empty folder."
        )
    if found and not expect_run:
        raise InputError(
            f"{path} already holds a run; give a new folder, --resume to go on with it or "
            "--overwrite."
        )
    return "config.json" in found


def _lock(path: Path) -> None:
    """Lock the folder for this process; the system unlocks it however the process ends."""
    import fcntl

    file = (path / _LOCK).open("a+")
    place = os.fstat(file.fileno()).st_ino
    if place in _locks:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        raise InputError(
            f"{path} is in use by process {file.read().strip() or 'of another machine'}; expected "
            "a folder of its own for each run."
        ) from error
    except OSError:  # a file system without locks, as some clusters have
        return
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    _locks[place] = file


def _changes(
    path: Path, config: Any, may_differ: Collection[str], reasons: Mapping[str, str] | None
) -> list[str]:
    """Return what has changed since `path` was written; raise if that may not change."""
    try:
        before = json.loads(path.read_text())
    except ValueError:
        before = None
    if not isinstance(before, dict):
        raise InputError(f"{path} is damaged, expected the configuration of a run.")
    now = _plain(dataclasses.asdict(config))
    for field in dataclasses.fields(config):  # the script may have gained a field since
        if field.default is not dataclasses.MISSING:
            before.setdefault(field.name, _plain(field.default))
    allowed, refused = [], []
    for name in sorted((before.keys() | now.keys()).difference(ASIDE)):
        if before.get(name, path) == now.get(name, path):
            continue
        change = f"{name} was {before.get(name, 'absent')} and is {now.get(name, 'absent')}"
        if name not in may_differ:
            reason = (reasons or {}).get(name)
            refused.append(f"{change} ({reason})" if reason else change)
        elif name == "epochs" and now[name] < before[name]:
            refused.append(f"{change} (a run can only become longer)")
        else:
            allowed.append(change)
    if refused:
        raise InputError(f"{path} is of another configuration: {', '.join(refused)}.")
    return allowed


def _drop_lines(path: Path, network: str, after: int) -> None:
    """Drop lines of the network about later steps, and any line that was cut off in writing."""
    if not path.exists():
        return

    def wanted(line: str) -> bool:
        try:
            entry = json.loads(line)
            return entry["network"] != network or entry["step"] <= after
        except (ValueError, KeyError, TypeError):
            return False

    kept = [line for line in path.read_text().splitlines() if wanted(line)]
    _write_text(path, "".join(line + "\n" for line in kept))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    _write_text(path, json.dumps(_plain(value), indent=indent, allow_nan=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _plain(value: Any) -> Any:
    """Convert a value to what JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy and JAX arrays and scalars
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
