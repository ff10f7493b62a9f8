"""Where the figures of a training go beside its run folder: CSV, Weights & Biases, or your own.

A logger has the face of `RunFolder.metrics`, which writes JSON lines and TensorBoard events in any
case: `logger(folder, network, after)` opens a context whose value is called as
`record(step=…, **figures)`. A training that is resumed writes the steps after `after` again.

    runs.fit(…, loggers=[runs.csv_log, runs.wandb_log(project="adders")])

Either also takes figures of single steps, under a name of their own:

    with runs.csv_log(folder, "CNN steps") as record:
        runs.fit("CNN", …, on_step=lambda now: record(step=now.step, **now.figures))
"""

import contextlib
import csv
import importlib
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nnlab.errors import InputError, needs
from nnlab.files.container import replacing
from nnlab.paths import writing
from nnlab.runs import hosts
from nnlab.runs.run_folder import RunFolder
from nnlab.runs.under_way import Training

Record = Callable[..., None]
Logger = Callable[[RunFolder, str, int], contextlib.AbstractContextManager[Record]]


@contextlib.contextmanager
def csv_log(folder: RunFolder, network: str, after: int = -1) -> Iterator[Record]:
    """Write `csv/NETWORK.csv` into the folder: a column for `step` and one for each figure.

    A figure that is not finite is `nan`, `inf` or `-inf`, as pandas reads it; one that a step does
    not have is empty. Each row is on its way to the disk when the call returns.

    Args:
        folder: of the run.
        network: gives the file its name.
        after: rows of earlier steps stay, those of later ones are dropped.

    Raises:
        InputError: the file cannot be read or written, or holds no `step`.
    """
    path = folder.path / "csv" / f"{network}.csv"
    columns, rows = _earlier(path, after)

    def rewrite() -> None:
        with replacing(path, overwrite=True) as partial, partial.open("w", newline="") as file:
            table = csv.DictWriter(file, columns)
            table.writeheader()
            table.writerows(rows)

    def record(*, step: int, **figures: Any) -> None:
        row = {"step": int(step)} | {name: float(value) for name, value in figures.items()}
        new = [name for name in row if name not in columns]
        rows.append(row)
        if new:
            columns.extend(new)
            rewrite()
        else:
            with writing(path), path.open("a", newline="") as file:
                csv.DictWriter(file, columns).writerow(row)

    if not hosts.is_writer():
        yield lambda **figures: None
        return
    rewrite()
    yield record


def _earlier(path: Path, after: int) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the columns of a file, and its rows up to a step."""
    if not path.exists():
        return ["step"], []
    with writing(path), path.open(newline="", errors="replace") as file:
        table = csv.DictReader(file)
        try:
            # A row that was cut off in writing has too few cells.
            rows = [row for row in table if None not in row.values() and int(row["step"]) <= after]
        except (KeyError, ValueError, csv.Error) as error:
            raise InputError(f"{path} is no log of figures, expected a column step.") from error
        return list(table.fieldnames or ["step"]), rows


def wandb_log(project: str, **options: Any) -> Logger:
    """Return a logger to Weights & Biases, one run a network, grouped by run folder.

    The run's configuration is that of the run folder, its files lie in `wandb/` there, and a
    resumed training goes on with the same run. Without a network set `WANDB_MODE=offline` and call
    `wandb sync` later.

    Args:
        project: the project's name.
        options: of `wandb.init`, such as `entity` and `tags`.

    Raises:
        MissingPackageError: wandb is not installed.

    Reference:
        https://docs.wandb.ai/ref/python/init
    """
    with needs("wandb"):
        wandb: Any = importlib.import_module("wandb")

    @contextlib.contextmanager
    def log(folder: RunFolder, network: str, after: int = -1) -> Iterator[Record]:
        if not hosts.is_writer():
            yield lambda **figures: None
            return
        name = folder.path.absolute().name
        config = folder.path / "config.json"
        settings: dict[str, Any] = {
            "project": project,
            "name": f"{name}/{network}",
            "group": name,
            "dir": str(folder.path),
            "config": json.loads(config.read_text()) if config.exists() else None,
            "id": _identity(folder.path / "wandb" / f"{network}.id"),
            "resume": "allow",
            "reinit": "create_new",
        }
        run = wandb.init(**settings | options)

        def record(*, step: int, **figures: Any) -> None:
            run.log({key: float(value) for key, value in figures.items()}, step=int(step))

        status = 1
        try:
            yield record
            status = 0
        finally:
            run.finish(exit_code=status)

    return log


def _identity(path: Path) -> str:
    """Return the name that the server knows a run by, which stays when it is resumed."""
    with writing(path):
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text(uuid.uuid4().hex)
        return path.read_text().strip()


@contextlib.contextmanager
def recording(folder: RunFolder, now: Training, loggers: Sequence[Logger]) -> Iterator[Record]:
    """Open the folder's metrics and all loggers; an error in one of these saves the state."""
    after = now.last_epoch_end
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(folder.metrics(now.name, after=after))
        others = [stack.enter_context(logger(folder, now.name, after)) for logger in loggers]

        def record(**figures: Any) -> None:
            first(**figures)
            try:
                for each in others:
                    each(**figures)
            except Exception as error:
                now.keep_after(error)
                raise

        yield record
