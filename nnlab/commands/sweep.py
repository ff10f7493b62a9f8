"""Run a script once for each combination of values, and compare the runs.

    nnlab sweep experiments/adder_vs_cnn.py --learning-rate 0.01 0.1 --seed 0 1 2 --epochs 10

SCRIPT is one of `experiments/`, or any that ends in `run(main, Config)` of `nnlab.runs.script` with
a Config that is a `nnlab.runs.Run`. The flags after it are the script's. One that has several
values is a dimension of the sweep, one that has a single value is passed on. A flag that takes
several values itself, such as --networks CNN AdderNet, is given once for each value of a dimension:

    nnlab sweep SCRIPT --networks CNN --networks AdderNet BNN --stream --no-stream

Each combination is a run folder in the sweep's folder, `runs/NAME_sweep` unless --out says another.
The runs come one after the other, each in a process of its own; one that fails is reported and the
others go on (exit status 1 at the end). All combinations are checked before the first run.

SIGTERM or Ctrl-C ends the sweep when the current run has saved. With --resume it goes on: finished
runs stay as they are, an interrupted one continues, and further values may be added. The table at
the end is also in `sweep.json`, and `nnlab compare` takes the sweep's folder.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
import typing
from collections import abc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from nnlab import figures
from nnlab.errors import InputError, Interrupted, needs
from nnlab.files.container import replacing
from nnlab.paths import user_path
from nnlab.runs import Run, RunFolder, signals
from nnlab.runs.fields import check_fields
from nnlab.runs.reading import best, read_json, read_run, shown
from nnlab.runs.run_folder import ASIDE
from nnlab.runs.script import configuration_of, parse, run

with needs("runs"):
    import tyro

Came = Callable[[], signal.Signals | None]  # the signal that has come
Flag = tuple[str, list[str]]  # as it is written, with its values
OWN = ("out", "overwrite", "resume")


@dataclasses.dataclass(frozen=True)
class Config:
    script: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SCRIPT")]
    """The script to run; its flags follow."""
    out: str | None = None
    """Folder of the sweep (default: runs/NAME_sweep)."""
    overwrite: bool = False
    """Replace an earlier sweep in that folder."""
    resume: bool = False
    """Continue the sweep in that folder, or start it."""

    def __post_init__(self):
        check_fields(self)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the sweep's folder keeps in `config.json`."""

    script: str
    dimensions: dict[str, list[Any]]


@dataclasses.dataclass(frozen=True)
class Combination:
    """One run to make: its folder's name, its values by dimension, and its command line."""

    name: str
    values: dict[str, Any]
    args: list[str]
    config: Run


def split(args: Sequence[str]) -> tuple[list[str], list[Flag]]:
    """Divide a command line into what comes before the first flag, and the flags.

    A word that begins with `--` and a letter is a flag; so -0.1 is a value.
    """
    before: list[str] = []
    found: list[Flag] = []
    for word in args:
        if re.match("--[A-Za-z]|-h$", word):
            name, equals, value = word.partition("=")
            found.append((name, [value] if equals else []))
        else:
            (found[-1][1] if found else before).append(word)
    return before, found


def fields_of(config_type: Any, prefix: str = "") -> dict[str, str]:
    """Return how many values each field takes: "none" (a switch), "one" or "several".

    A field of a dataclass within the configuration has a dot in its name.
    """
    hints = typing.get_type_hints(config_type, include_extras=True)
    found = {}
    for field in dataclasses.fields(config_type):
        hint, name = hints[field.name], prefix + field.name
        if dataclasses.is_dataclass(hint):
            found |= fields_of(hint, f"{name}.")
        else:
            found[name] = "none" if hint is bool else "several" if _several(hint) else "one"
    return found


def _several(hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _several(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return any(map(_several, arguments))
    return bool({hint, origin} & {tuple, list, set, frozenset, dict, abc.Sequence, abc.Mapping})


def combinations(config_type: Any, flags: Sequence[Flag], folder: Path) -> list[Combination]:
    """Return the runs that the flags ask for, the last dimension changing fastest.

    Raises:
        InputError: a flag is not one of the script, a value is given twice or is not allowed, or no
            flag has several values.
        SystemExit: a value does not parse.
    """
    kinds = fields_of(config_type)
    choices: dict[str, list[list[str]]] = {}
    for flag, values in flags:
        name = flag[2:].replace("-", "_")
        if kinds.get(name.removeprefix("no_")) == "none":
            name = name.removeprefix("no_")
        if name not in kinds:
            shown = ", ".join(f"--{each.replace('_', '-')}" for each in kinds if each not in OWN)
            raise InputError(f"{flag} is not a flag of the script; expected some of {shown}.")
        one_each = kinds[name] == "one" and values
        parts = [[flag, value] for value in values] if one_each else [[flag, *values]]
        choices.setdefault(name, []).extend(parts)
    dimensions = [name for name, parts in choices.items() if len(parts) > 1]
    if not dimensions:
        raise InputError("No flag has several values; expected one or more, such as --seed 0 1 2.")
    found: dict[str, Combination] = {}
    for parts in itertools.product(*choices.values()):
        args = list(itertools.chain(*parts))
        config: Any = parse(config_type, [*args, "--out", str(folder)])
        values = {name: functools.reduce(getattr, name.split("."), config) for name in dimensions}
        name = _folder_name(values)
        if name in found:
            raise InputError(f"The values {name} are given twice; expected each value once.")
        args += ["--out", str(folder / name)]
        config = dataclasses.replace(config, out=str(folder / name))
        found[name] = Combination(name, values, args, config)
    return list(found.values())


def _folder_name(values: dict[str, Any]) -> str:
    """Name a folder after values, so that Orbax reads it and a further sweep finds it again."""
    text = ",".join(f"{name}={_text(value)}" for name, value in values.items())
    name = re.sub(r"[^\w.,=+-]+", "_", text, flags=re.ASCII)
    if name == text and len(name) <= 120:
        return name
    return f"{name[:110]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "+".join(map(_text, value))
    return str(value)


def is_finished(folder: Path, config: Run) -> bool:
    """Return whether the folder holds the finished run of this configuration."""
    if not (folder / "result.json").is_file():
        return False
    result = read_json(folder / "result.json")
    here = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    there = result.get("config", {})
    names = (here.keys() | there.keys()).difference(ASIDE)
    same = all(here.get(name) == there.get(name) for name in names)
    return bool(result.get("finished")) and same


def call(command: Sequence[str], came: Came, environment: dict[str, str]) -> int:
    """Run a command to its end and return its exit status; hand it the signal that comes here."""
    sys.stdout.flush()
    # In a session of its own, or Ctrl-C on a terminal would reach it twice, and a second signal
    # ends a run without a save.
    with subprocess.Popen(command, env=environment, start_new_session=True) as child:
        passed = False
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return child.wait(0.1)
            if (by := came()) and not passed:
                child.send_signal(by)
                passed = True


def rows_of(folder: Path, entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the table: a row for each run and network, with its best epoch and score."""
    read = []
    for entry in entries:
        started = (folder / entry["folder"] / "config.json").is_file()
        curves = read_run(folder / entry["folder"]).curves if started else {}
        read += [(entry, name, best(curve)) for name, curve in (curves or {"": {}}).items()]
    metrics = {shown(found.metric) for *_, found in read if found}
    score, factor, digits = metrics.pop() if len(metrics) == 1 else ("score", 1, 4)
    several = len({name for _, name, _ in read} - {""}) > 1
    rows = []
    for entry, network, found in read:
        minutes = entry["minutes"]
        rows.append(
            {name: _text(value) for name, value in entry["values"].items()}
            | ({"network": network} if several else {})
            | {"best epoch": str(found.epoch) if found else "-"}
            | {f"{score}, best epoch": f"{factor * found.value:.{digits}f}" if found else "-"}
            | {"minutes": "-" if minutes is None else f"{minutes:.1f}"}
            | {"status": entry["status"]}
        )
    return rows


def main(flags: Sequence[Flag], config: Config) -> None:
    script = user_path(config.script)
    path = user_path(config.out or f"runs/{script.stem}_sweep")
    with configuration_of(script) as config_type:
        if not (isinstance(config_type, type) and issubclass(config_type, Run)):
            raise InputError(f"The Config of {script} is no nnlab.runs.Run, as a sweep needs it.")
        if any(flag in ("-h", "--help") for flag, _ in flags):
            parse(config_type, ["--help"])
        runs = combinations(config_type, flags, path)
    dimensions: dict[str, list[Any]] = {name: [] for name in runs[0].values}
    for each in runs:
        for name, value in each.values.items():
            if value not in dimensions[name]:
                dimensions[name].append(value)
    plan = Plan(str(script.absolute()), dimensions)
    folder = RunFolder.create(path, plan, config.overwrite, config.resume, ["dimensions"])
    with contextlib.ExitStack() as stack:
        stack.callback(folder.release)
        failed = sweep(script, runs, config, folder.path, stack.enter_context(signals.deferred()))
    if failed:
        raise SystemExit(1)


def sweep(
    script: Path, runs: Sequence[Combination], config: Config, folder: Path, came: Came
) -> int:
    """Make the runs that are not finished, print the table, and return how many have failed.

    Raises:
        Interrupted: by a signal, after the current run has saved.
    """
    kept = folder / "sweep.json"
    before = read_json(kept).get("runs", []) if config.resume and kept.is_file() else []
    minutes = {entry["folder"]: entry["minutes"] for entry in before}
    entries: list[dict[str, Any]] = [
        {"folder": run.name, "values": run.values, "minutes": minutes.get(run.name)} for run in runs
    ]
    for entry, each in zip(entries, runs, strict=True):
        done = not config.overwrite and is_finished(folder / each.name, each.config)
        entry["status"] = "finished" if done else "waiting"

    def save(**more: Any) -> None:
        text = json.dumps(
            {"script": str(script.absolute()), "runs": entries, **more}, indent=2, default=str
        )
        with replacing(kept, overwrite=True) as partial:
            partial.write_text(text + "\n")

    save()
    # One program serves all seeds.
    programs = {"JAX_COMPILATION_CACHE_DIR": str(folder.absolute() / "programs")}
    environment = programs | dict(os.environ)
    for number, (entry, each) in enumerate(zip(entries, runs, strict=True), 1):
        head = f"[{number}/{len(runs)}] {each.name}"
        if entry["status"] == "finished":
            print(f"{head}: finished before")
            continue
        print(head)
        start = time.monotonic()
        again = ["--resume"] * config.resume + ["--overwrite"] * config.overwrite
        command = [sys.executable, str(script), *each.args, *again]
        status = call(command, came, environment)
        spent = (entry["minutes"] or 0.0) * config.resume + (time.monotonic() - start) / 60
        entry["minutes"] = round(spent, 2)
        entry["status"] = "finished"
        if status:
            entry["status"] = "stopped" if came() else f"failed ({status})"
            print(f"{each.name} {entry['status']}.", file=sys.stderr, flush=True)
        save()
        if by := came():
            raise Interrupted(
                f"The sweep was stopped by {by.name} in run {number} of {len(runs)}; with --resume"
                f" it goes on from {folder}.",
                by,
            )
    rows = rows_of(folder, entries)
    save(table=rows)
    figures.print_table(rows)
    print(f"Compare: nnlab compare {folder}")
    return sum(entry["status"] != "finished" for entry in entries)


def command(args: Sequence[str]) -> None:
    """Give the sweep's own flags to it, and the others to `main`."""
    before, flags = split(args)
    own = [(flag, values) for flag, values in flags if flag[2:] in OWN or not before]
    rest = [each for each in flags if each not in own]
    words = [word for flag, values in own for word in (flag, *values)]
    run(functools.partial(main, rest), Config, [*before, *words])


if __name__ == "__main__":
    command(sys.argv[1:])
