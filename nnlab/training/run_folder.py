"""The folder of one run: what was asked, how it went, and what came out.

================  ==================================================================
config.json       the configuration, written first
metrics.jsonl     one JSON object a line: network, step and its figures
tensorboard/      the finite ones as TensorBoard events, one sub-folder a network
checkpoints/      training states (`nnlab.training.checkpoints`)
result.json       the result, written last; it is there whole or not at all
report.html       the report (`nnlab.analysis`)
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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nnlab.errors import InputError

_WRITTEN = ("metrics.jsonl", "tensorboard", "checkpoints", "result.json", "report.html")
_PARTIAL = ("config.json.partial", "result.json.partial")  # left by a kill while writing


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run folder that exists; `RunFolder.create` makes one, `RunFolder(path)` opens one again.

    Attributes:
        path: the folder.
    """

    path: Path

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], config: Any, overwrite: bool = False
    ) -> "RunFolder":
        """Makes the folder `path`, missing parents too, and writes `config` into it.

        Args:
            path: a folder that is new or empty, or one of an earlier run to overwrite.
            config: a dataclass instance; what is not a number, string, list or mapping in it is
                written as its `str`.
            overwrite: remove from an earlier run's folder what that run wrote. Other files in it
                stay.

        Raises:
            InputError: the folder holds a run and `overwrite` is false, or it holds other files
                and no run, or it cannot be written.
        """
        folder = cls(Path(path))
        try:
            _check_free(folder.path, overwrite)
            folder.path.mkdir(parents=True, exist_ok=True)
            for name in (*_WRITTEN, *_PARTIAL):
                _remove(folder.path / name)
            _write_json(folder.path / "config.json", dataclasses.asdict(config))
        except InputError:
            raise
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"The run folder {path} cannot be written: {reason}.") from error
        return folder

    @property
    def checkpoints(self) -> Path:
        """The folder for checkpoints, made by whoever saves the first one."""
        return self.path / "checkpoints"

    @property
    def report(self) -> Path:
        """The file for the report."""
        return self.path / "report.html"

    @contextlib.contextmanager
    def metrics(self, network: str) -> Iterator[Callable[..., None]]:
        """Opens `metrics.jsonl` and the TensorBoard events of one network for appending.

            with folder.metrics("CNN") as record:
                record(step=100, loss=0.31, accuracy=0.91)

        Each call appends one line, which is with the operating system when the call returns;
        TensorBoard's events follow within ten seconds. A step is an integer and a figure a
        number, or arrays of shape [] in their place.
        """
        from tensorboardX import SummaryWriter

        events = SummaryWriter(str(self.path / "tensorboard" / network), flush_secs=10)
        with events, (self.path / "metrics.jsonl").open("a") as lines:

            def record(*, step: int, **figures: Any) -> None:
                line = {"network": network, "step": step} | figures
                lines.write(json.dumps(_plain(line), allow_nan=False) + "\n")
                lines.flush()
                for name, value in figures.items():
                    if math.isfinite(value):  # of others tensorboardX warns on standard error
                        events.add_scalar(name, float(value), int(step))

            yield record

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes `result.json` whole, in place of an earlier one of the same run.

        Args:
            result: names to numbers, strings, arrays, lists and mappings of these.
        """
        _write_json(self.path / "result.json", result)


def _check_free(path: Path, overwrite: bool) -> None:
    found = {entry.name for entry in path.iterdir()} if path.exists() else set()
    others = sorted(found.difference(_WRITTEN, _PARTIAL))
    if others and "config.json" not in found:
        raise InputError(
            f"{path} holds {others[0]} but no config.json, so it is not a run folder and not even "
            "--overwrite writes there; expected a new or empty folder."
        )
    if found and not overwrite:
        raise InputError(f"{path} already holds a run; give a new folder or --overwrite.")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_json(path: Path, value: Any) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as file:
        file.write(json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _plain(value: Any) -> Any:
    """The value as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy and JAX arrays and scalars
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
