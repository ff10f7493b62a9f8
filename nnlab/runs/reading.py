"""Runs read back from their folders, to be compared.

A run folder holds `config.json`, one line an epoch in `metrics.jsonl` and, once there are results,
`result.json` (`nnlab.runs.run_folder`). A sweep folder (`nnlab sweep`) holds `sweep.json`, which
names its run folders.
"""

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nnlab.errors import InputError
from nnlab.paths import reading, user_path

# What tells a good epoch, as `nnlab.runs.fit` has it; the first that was measured decides.
SCORES = ("validation_accuracy", "validation_loss", "test_accuracy", "test_loss")

Curves = Mapping[str, list[float]]


class Best(NamedTuple):
    """The best epoch of a training, from 1, and the figure by which it is."""

    epoch: int
    metric: str
    value: float


class Shown(NamedTuple):
    """How tables show a figure of `SCORES`: its name with its unit, a factor, digits."""

    name: str
    factor: int
    digits: int


def shown(metric: str) -> Shown:
    """Return how tables show a figure: accuracies in percent."""
    name = metric.replace("_", " ")
    return Shown(f"{name} / %", 100, 2) if metric.endswith("accuracy") else Shown(name, 1, 4)


@dataclasses.dataclass(frozen=True)
class PastRun:
    """A run as its folder tells it.

    Attributes:
        path: the folder.
        config: the configuration, as JSON holds it.
        result: what `result.json` holds, or None before there is one.
        curves: for each network, one value an epoch of each figure, such as `test_accuracy`.
    """

    path: Path
    config: dict[str, Any]
    result: dict[str, Any] | None
    curves: dict[str, dict[str, list[float]]]

    @property
    def finished(self) -> bool:
        """Whether the script has come to its end."""
        return bool(self.result and self.result.get("finished"))


def read_run(path: str | os.PathLike[str]) -> PastRun:
    """Read a run folder.

    Raises:
        InputError: it is not the folder of a run, or a file in it is damaged or cannot be read.
    """
    path = user_path(path)
    if not (path / "config.json").is_file():
        raise InputError(f"{path} is not the folder of a run: it holds no config.json.")
    result = path / "result.json"
    return PastRun(
        path,
        read_json(path / "config.json"),
        read_json(result) if result.is_file() else None,
        _curves(path / "metrics.jsonl"),
    )


def read_runs(paths: Iterable[str | os.PathLike[str]]) -> list[PastRun]:
    """Read run folders, and those of sweep folders that have been started, each once.

    Raises:
        InputError: as `read_run`; or a sweep has no run.
    """
    folders: dict[Path, Path] = {}
    for path in map(user_path, paths):
        found = [path]
        if (sweep := path / "sweep.json").is_file():
            entries = read_json(sweep).get("runs", [])
            found = [path / entry["folder"] for entry in entries]
            found = [folder for folder in found if (folder / "config.json").is_file()]
            if not found:
                raise InputError(f"{path} is a sweep of which no run has started.")
        folders |= {folder.resolve(): folder for folder in found}
    return [read_run(folder) for folder in folders.values()]


def best(curves: Curves) -> Best | None:
    """Return the best epoch: of greatest accuracy or, without one, least loss; None without both.

    Those of a validation set count before those of the test set.
    """
    for metric in SCORES:
        if values := curves.get(metric):
            sign = -1 if metric.endswith("loss") else 1
            scores = [-math.inf if math.isnan(value) else sign * value for value in values]
            at = scores.index(max(scores))
            return Best(at + 1, metric, values[at])
    return None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; `InputError` if there is none."""
    with reading(path):
        text = path.read_text(encoding="utf-8", errors="replace")
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path} is damaged, expected a JSON object.")
    return found


def _curves(path: Path) -> dict[str, dict[str, list[float]]]:
    curves: dict[str, dict[str, list[float]]] = {}
    if not path.is_file():
        return curves
    with reading(path):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            network = curves.setdefault(entry.pop("network"), {})
            for name, value in entry.items():
                network.setdefault(name, []).append(float(value))  # "nan" too
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if number == len(lines):  # cut off by a kill in writing
                break
            raise InputError(f"{path} is damaged in line {number}.") from error
    return curves
