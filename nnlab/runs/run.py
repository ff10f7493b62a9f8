"""A run: its configuration, the folder that it opens, and the results that it records there.

A script uses it like this:

    @dataclasses.dataclass(frozen=True)
    class Config(Run):
        out: str = "runs/my_question"
        epochs: PositiveInt = 10
        seed: Seed = 0

    def main(config: Config) -> None:
        with config.open() as record:
            for name in ("CNN", "AdderNet"):
                trained = fit(name, …, epochs=config.epochs, folder=record.folder)
                record.row({"network": name, "loss": trained.history["test_loss"][-1]})

    if __name__ == "__main__":
        run(main, Config)  # nnlab.runs.script
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from nnlab.paths import writing
from nnlab.runs import hosts
from nnlab.runs.environment import provenance
from nnlab.runs.fields import check_fields
from nnlab.runs.reading import read_run
from nnlab.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


EPOCHS = {"epochs": "the learning rate may be scheduled over all epochs"}
COSINE = {"epochs": "the learning rate falls to 0 as a cosine over all epochs"}


@dataclasses.dataclass(frozen=True)
class Run:
    """What every script can be asked for; its own configuration adds fields to these.

    Attributes:
        out: Folder of the run.
        overwrite: Replace an earlier run in that folder.
        resume: Continue the run in that folder, or start it.

    Raises:
        InputError: on construction, if a field's value is not of its type (`nnlab.runs.fields`).
    """

    out: str
    overwrite: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        check_fields(self)

    @contextlib.contextmanager
    def open(
        self,
        *may_differ: str,
        notes: Mapping[str, Any] | None = None,
        reasons: Mapping[str, str] | None = None,
    ) -> Iterator["Record"]:
        """Open the run's folder, write the configuration into it, and yield its record.

        No other process can open the folder until the block ends. If it ends without an error, the
        result is marked as finished.

        Args:
            may_differ: fields that may have other values when the run is resumed, besides those
                of `Run` and `data_dir`: `"epochs"` where the optimiser does not depend on it, so
                that a longer run may go on from a shorter one, and `"patience"`.
            notes: what users of its networks need to know and JSON can hold, such as names of
                classes and how inputs are prepared; `fit` writes it into their files.
            reasons: why other fields may not, such as `COSINE`; the refusal says it.

        Raises:
            InputError: the folder cannot be used (`RunFolder.create`).
        """
        folder = RunFolder.create(
            self.out, self, self.overwrite, self.resume, may_differ, EPOCHS | dict(reasons or {})
        )
        try:
            record = Record(dataclasses.replace(folder, notes=dict(notes or {})), self)
            yield record
            if measures := folder.measures():
                record.result({"measures": measures})
            record.result({"finished": True})
        finally:
            folder.release()


class Record:
    """The results of a run, kept in `result.json` from the first row on.

    The file holds the command, hardware and versions, the configuration, and then what the script
    adds; it is written anew with each addition, so that an interrupted run keeps its rows. In the
    end "measures" are added: what the tests say of the networks that `fit` has trained. Of several
    processes that train as one, process 0 writes.

    Attributes:
        folder: the folder of the run.
        contents: what `result.json` holds.
    """

    def __init__(self, folder: RunFolder, config: Any):
        self.folder = folder
        self._start = time.perf_counter()
        self.contents: dict[str, Any] = provenance() | {"config": dataclasses.asdict(config)}

    def go_on(self) -> None:
        """Take over what an earlier piece of the run has recorded, if it is being resumed.

        For scripts that ask `rows` what is done; others record their rows anew.
        """
        if self.folder.resume and (found := read_run(self.folder.path).result):
            self.contents = {**found, "finished": False} | self.contents

    @property
    def minutes(self) -> float:
        """Minutes since the folder was opened, to a tenth."""
        return round((time.perf_counter() - self._start) / 60, 1)

    def row(self, row: Mapping[str, Any], table: str = "table") -> None:
        """Add a row to a table of the result."""
        self.result({table: [*self.rows(table), dict(row)]})

    def rows(self, table: str = "table") -> list[dict[str, Any]]:
        """Return the rows of a table so far."""
        return self.contents.get(table, [])

    def result(self, parts: Mapping[str, Any]) -> None:
        """Add parts to the result by their names, or replace them."""
        self.contents |= parts
        self.folder.write_result(self.contents)

    def figure(self, figure: "Figure", name: str = "curves.png", dpi: int = 120) -> None:
        """Save a figure in the folder."""
        if hosts.is_writer():
            with writing(self.folder.path / name):
                figure.savefig(self.folder.path / name, dpi=dpi)
