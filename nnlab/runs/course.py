"""Where a training stands, and all of it that a checkpoint holds."""

import dataclasses
import math
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from nnlab.errors import DivergedError
from nnlab.runs.checkpoints import Checkpoints
from nnlab.runs.run_folder import RunFolder
from nnlab.runs.stopping import stopped_improving
from nnlab.training.feeds import Advance
from nnlab.training.parallel import replicate
from nnlab.training.steps import State, leaf_name

History = dict[str, list[float]]


def scores(history: History, score: Callable[[dict[str, float]], float]) -> list[float]:
    """Of each epoch that has been tested, what `score` makes of its test."""
    tested = {key[5:]: each for key, each in history.items() if key.startswith("test_")}
    epochs = zip(*tested.values(), strict=True)
    return [score(dict(zip(tested, values, strict=True))) for values in epochs]


@dataclasses.dataclass
class Course:
    """A training under way.

    Attributes:
        name: of the network.
        state: the present one.
        history: what each epoch has come to.
        sums: over the steps of the present epoch.
        steps_per_epoch: of the data.
        checkpoints, folder: where to save, and what errors name.
        score: of what a test gives; larger is better.
    """

    name: str
    state: State
    history: History
    sums: dict[str, float]
    steps_per_epoch: int
    checkpoints: Checkpoints
    folder: RunFolder
    score: Callable[[dict[str, float]], float]

    @classmethod
    def start(
        cls,
        name: str,
        state: State,
        steps_per_epoch: int,
        checkpoints: Checkpoints,
        folder: RunFolder,
        score: Callable[[dict[str, float]], float],
        mesh: Mesh | None,
    ) -> "Course":
        """At the newest checkpoint, or at `state`."""
        # A copy, because training gives the memory of its states away.
        fresh = jax.tree.map(jnp.copy, state), {"history": {}, "sums": {}}
        state, about = checkpoints.newest(like=state) or fresh
        if mesh is not None:
            state = replicate(state, mesh)
        history, sums = about["history"], about["sums"]
        return cls(name, state, history, sums, steps_per_epoch, checkpoints, folder, score)

    @property
    def step(self) -> int:
        return int(self.state.step)

    def ended(self, epochs: int, patience: int | None) -> bool:
        scored = scores(self.history, self.score)
        return len(scored) >= epochs or (
            patience is not None and stopped_improving(scored, patience)
        )

    @property
    def last_epoch_end(self) -> int:
        """The step of the last evaluation, up to which there are metrics."""
        return self.steps_per_epoch * len(self.history.get("seconds", []))

    @property
    def within_epoch(self) -> bool:
        """Whether the epoch has steps left; otherwise it has yet to be evaluated."""
        return self.step < self.last_epoch_end + self.steps_per_epoch

    @property
    def best_step(self) -> int | None:
        scored = scores(self.history, self.score)
        return (1 + int(np.argmax(scored))) * self.steps_per_epoch if scored else None

    def train(self, advance: Advance, count: int) -> float:
        """Takes up to `count` steps and returns the seconds of one."""
        start = time.perf_counter()
        self.state, metrics = advance(self.state, count)
        made = len(metrics["loss"])
        seconds = time.perf_counter() - start
        leaf = metrics.pop("nonfinite", np.array([-1]))[-1]
        # A step that `optax.apply_if_finite` has skipped may have a loss that is not finite.
        counted = np.isfinite(metrics["loss"])
        counted[-1:] &= leaf < 0  # the step that was not taken
        for key, values in metrics.items():
            self.sums[key] = sum(values[counted].tolist(), self.sums.get(key, 0.0))
        self.sums["steps"] = self.sums.get("steps", 0) + int(counted.sum())
        self.sums["seconds"] = self.sums.get("seconds", 0.0) + seconds
        if leaf >= 0:
            what = f"{leaf_name(self.state, leaf)} of {self.name} is not finite"
            raise self._diverged(f"{what} at step {self.step + 1}")
        return seconds / made

    def figures(self) -> dict[str, float]:
        """Of the epoch so far, for the progress line."""
        means = self._means()
        figures = {"epoch": self.step / self.steps_per_epoch, "loss": means["loss"]}
        if "accuracy" in means:
            accuracies = self.history.get("test_accuracy", [means["accuracy"]])
            figures["accuracy"] = accuracies[-1]
        return figures

    def close_epoch(self, tested: dict[str, float]) -> None:
        if not math.isfinite(tested["loss"]):
            what = f"The test loss of {self.name} is {tested['loss']} after step {self.step}"
            raise self._diverged(what)
        figures = {f"train_{key}": value for key, value in self._means().items()}
        figures |= {f"test_{key}": value for key, value in tested.items()}
        figures["seconds"] = self.sums["seconds"]
        if isinstance(self.state.opt_state, optax.ApplyIfFiniteState):
            figures["skipped"] = int(self.state.opt_state.total_notfinite)
        for key, value in figures.items():
            self.history.setdefault(key, []).append(value)
        self.sums = {}

    def save(self) -> None:
        about = {"history": self.history, "sums": self.sums}
        self.checkpoints.save(self.step, self.state, about, self.best_step)

    def _means(self) -> dict[str, float]:
        steps = self.sums["steps"]
        rest = self.sums.keys() - {"steps", "seconds"}
        return {key: self.sums[key] / steps if steps else math.nan for key in sorted(rest)}

    def _diverged(self, what: str) -> DivergedError:
        self.save()
        self.checkpoints.wait()
        return DivergedError(
            f"{what}; the configuration is in {self.folder.path / 'config.json'}, "
            f"the last good checkpoint is {self.checkpoints.path(self.step)}."
        )
