"""Long experiments in pieces: what an earlier piece has trained and measured is not done again."""

import time
from collections.abc import Callable
from typing import Any

import jax

from nnlab import runs
from nnlab.classics import layerwise, rbm
from nnlab.classics.rbm import RBM
from nnlab.errors import InputError
from nnlab.runs.checkpoints import Checkpoints


def check_fills(images: Any, batch_size: int = 100) -> None:
    """Raise `InputError` if images fill no batch, before anything is trained."""
    if len(images) < batch_size:
        raise InputError(f"{len(images)} images were given, expected at least {batch_size}.")


class Stages:
    """The stages of a run, each of which is on disk when it is done.

    Attributes:
        record: of the run; rows of a run that goes on are in it again.
    """

    def __init__(self, record: runs.Record):
        self.record, self._trained = record, {}
        record.go_on()

    @property
    def seconds(self) -> float:
        """Seconds of processor time of all stages together."""
        return sum(self.record.contents.get("seconds", {}).values())

    def spent(self, name: str, start: float) -> None:
        """Add the seconds since `start`, of `time.process_time`, to those of a stage."""
        before = self.record.contents.get("seconds", {})
        seconds = before.get(name, 0.0) + time.process_time() - start
        self.record.result({"seconds": before | {name: round(seconds, 1)}})

    def trained(self, name: str, like: Any, make: Callable[[], Any]) -> Any:
        """Return what `make` trains, or has trained before; `like` has its shapes."""
        path = self.record.folder.checkpoints / name
        if name not in self._trained and path.is_dir():
            self._trained[name] = runs.restore(path, like)
        elif name not in self._trained:
            start = time.process_time()
            self._trained[name] = jax.block_until_ready(make())
            runs.save(path, self._trained[name])
            self.spent(name, start)
        return self._trained[name]

    def layer(self, name: str, key, data, hidden: int, rule, **options) -> RBM:
        """Return a layer that `train_layer` trains, each epoch of it kept."""

        def learn() -> RBM:
            folder = self.record.folder.checkpoints / f"{name}_epochs"
            with Checkpoints(folder, keep=1) as kept:
                like = layerwise.begin(key, data, hidden, options.get("batch_size", 100))
                options["before"] = kept.newest(like)

                def observe(done: int, learning: layerwise.Learning) -> None:
                    kept.save(done, learning, about=done)

                return layerwise.train_layer(key, data, hidden, rule, observe=observe, **options)

        return self.trained(name, rbm.start(key, data.shape[1], hidden), learn)

    def row(self, row: dict[str, Any], table: str, measure: Callable[[], dict[str, Any]]) -> dict:
        """Return the row of a table that begins with `row`, measured once."""
        for found in self.record.rows(table):
            if row.items() <= found.items():
                return found
        made = row | measure()
        self.record.row(made, table)
        return made
