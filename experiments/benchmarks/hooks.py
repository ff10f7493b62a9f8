"""What does `on_step` cost, which cuts a compiled run of several steps into shorter ones?

Answer: With a call after each step LeNet-5 at batch 32 trains 2.3 times as long, after every
tenth 1.06 times; a step that takes next to nothing takes 16 times as long. A call costs some 3 ms.

A hook that does nothing, called after every step, every tenth and every hundredth, in `runs.fit` on
random images of 28 x 28: a linear classifier, whose step is next to nothing, and LeNet-5. The time
is that of the processor, so that other programs count little, for an epoch of training from one
call of `on_epoch` to the next: the least of all rounds, in which the ways take turns.

    python experiments/benchmarks/hooks.py
"""

import contextlib
import dataclasses
import time
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from nnlab import figures, runs, training
from nnlab.models import LeNet5
from nnlab.runs.fields import PositiveInt
from nnlab.runs.script import run

INTERVALS = {"without": None, "every 100 steps": 100, "every 10 steps": 10, "every step": 1}


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/hooks"
    batch_size: PositiveInt = 32
    steps: PositiveInt = 200
    """Steps an epoch."""
    epochs: PositiveInt = 2
    """Epochs of each measurement, after one that is left out."""
    rounds: PositiveInt = 3


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return nn.Dense(10)(x.reshape(len(x), -1))


def main(config: Config) -> None:
    rng = np.random.default_rng(0)
    images = config.steps * config.batch_size
    data = (
        rng.normal(size=(images, 28, 28, 1)).astype(np.float32),
        rng.integers(0, 10, images).astype(np.int32),
    )
    with config.open() as record:
        for name, model in {"linear": Linear(), "LeNet-5": LeNet5()}.items():
            best = measured(name, model, data, config, record.folder)
            times = {way: round(1e6 * seconds / config.steps) for way, seconds in best.items()}
            ratios = {way: round(best[way] / best["without"], 2) for way in list(best)[1:]}
            record.row({"network": name, "µs a step": times["without"]} | ratios)
        figures.print_table(record.rows())


def measured(
    name: str, model: nn.Module, data: Any, config: Config, folder: runs.RunFolder
) -> dict[str, float]:
    """Return the seconds of an epoch in each way."""
    optimizer = optax.sgd(0.01)
    state = training.init(jax.random.key(0), model, optimizer, data[0])
    step, evaluate = training.train_step(model, optimizer), training.evaluation(model)
    feed, few = training.in_memory(data, config.batch_size), (data[0][:10], data[1][:10])
    best: dict[str, float] = {}
    with feed.compile(step, state, None) as advance:
        feed = feed._replace(compile=lambda *_: contextlib.nullcontext(advance))
        for number in range(config.rounds):
            for way, interval in INTERVALS.items():
                times: list[float] = []
                runs.fit(
                    *(f"{name}, {way}, {number}", state, step, evaluate, feed, few),
                    epochs=1 + config.epochs,
                    folder=folder,
                    diagnose=False,
                    on_epoch=lambda _, times=times: times.append(time.process_time()),
                    on_step=() if interval is None else lambda _: None,
                    step_interval=interval or 1,
                )
                best[way] = min(best.get(way, np.inf), *np.diff(times).tolist())
    return best


if __name__ == "__main__":
    run(main, Config)
