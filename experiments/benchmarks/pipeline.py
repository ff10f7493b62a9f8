"""What does it cost to stream a data set from disk instead of holding it in memory?

Answer: Streaming slows the training of a ResNet-20 down by at most 3 %.

CIFAR-10 in batches on the device, shuffled anew every epoch and standardised: gathered there from
arrays in memory, or streamed from the binary files by a thread or by worker processes. Measured as
images a second of the data alone, and of training steps of the ResNet-20 CNN. All ways are measured
in one process and in turn, each after it has used up what it had read ahead in the meantime;
figures are medians over the rounds, the first of which is left out.

Run it on an idle machine:

    python experiments/benchmarks/pipeline.py --data-dir DIR
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnlab import training
from nnlab.arithmetics import FLOAT
from nnlab.data import Stream, to_device
from nnlab.models import resnet20
from nnlab.runs import Run
from nnlab.runs.fields import Count, DataDir, PositiveInt
from nnlab.runs.script import run
from nnlab.vision import (
    Records,
    record_source,
    record_statistics,
    standardize,
    standardizer,
    to_float,
)

Batch = tuple[jax.Array, jax.Array]
Batches = Iterator[Batch]

DATA, TRAINING = "data alone", "training"
AHEAD = 16  # batches, more than any stream has read ahead


@dataclasses.dataclass(frozen=True)
class Config(Run):
    out: str = "runs/pipeline"
    data_dir: DataDir = None
    batch_size: PositiveInt = 128
    workers: tuple[Count, ...] = (0, 1, 2)
    """Numbers of worker processes to measure; with 0 a thread reads."""
    steps: PositiveInt = 100
    """Batches in one measurement of the data alone."""
    training_steps: PositiveInt = 20
    """Steps in one measurement of training."""
    rounds: PositiveInt = 7
    """Measurements of each, after one that is left out."""


def main(config: Config) -> None:
    source = record_source("cifar10", config.data_dir)
    statistics = record_statistics(source)
    stream = Stream(source, config.batch_size, seed=0, transform=standardizer(*statistics))
    _ = stream.steps_per_epoch  # raises before anything is measured
    with config.open() as record, contextlib.ExitStack() as stack:
        ways: dict[str, Batches] = {"in memory": in_memory(source, statistics, config.batch_size)}
        for workers in config.workers:
            batches = to_device(dataclasses.replace(stream, workers=workers).batches())
            ways[f"streamed, {workers} workers"] = stack.enter_context(contextlib.closing(batches))
        train = trainer(next(ways["in memory"])[0])
        kinds = (DATA, lambda batch: batch, config.steps), (TRAINING, train, config.training_steps)
        for what, use, steps in kinds:
            print(f"measuring {what}", flush=True)
            times = {way: [] for way in ways}
            for _ in range(1 + config.rounds):
                for way, batches in ways.items():
                    times[way].append(seconds(batches, use, steps))
            for way, taken in times.items():
                rates = steps * config.batch_size / np.array(taken[1:])
                low, median, high = np.percentile(rates, (25, 50, 75))
                row = {"what": what, "way": way, "images_per_second": median}
                record.row(row | {"quartiles": (low, high), "rounds": len(rates)}, "rows")
        print(markdown(record.contents))


def in_memory(
    source: Records, statistics: tuple[np.ndarray, np.ndarray], batch_size: int
) -> Batches:
    """Yield batches gathered on the device from all images, which it holds."""
    images, labels = source.gather(range(len(source)))
    data = standardize(to_float(images), *statistics), jnp.asarray(labels)
    steps = len(labels) // batch_size

    @jax.jit
    def batch(data, order, step):
        chosen = order[step]
        return data[0][chosen], data[1][chosen]

    for epoch in itertools.count():
        order = jax.random.permutation(jax.random.key(epoch), len(labels))
        order = order[: steps * batch_size].reshape(steps, batch_size)
        for step in range(steps):
            yield batch(data, order, step)


def seconds(batches: Batches, use: Callable[[Batch], object], steps: int) -> float:
    """Time `steps` batches, after as many as may have been read ahead."""
    for _ in range(AHEAD):
        jax.block_until_ready(next(batches))
    start = time.perf_counter()
    for _ in range(steps):
        jax.block_until_ready(use(next(batches)))
    return time.perf_counter() - start


def trainer(images: jax.Array) -> Callable[[Batch], object]:
    """Return a function that trains on a batch."""
    model, optimizer = (
        resnet20(arithmetic=FLOAT, first=FLOAT, classifier=FLOAT),
        optax.sgd(0.01, 0.9),
    )
    step = jax.jit(training.train_step(model, optimizer), donate_argnums=0)
    state = training.init(jax.random.key(0), model, optimizer, images)

    def train(batch):
        nonlocal state
        state, metrics = step(state, batch)
        return metrics

    return train


def markdown(result: dict[str, Any]) -> str:
    """Format the medians as a table, a column for each way."""
    ways = list(dict.fromkeys(row["way"] for row in result["rows"]))
    lines = [f"| images a second | {' | '.join(ways)} |", "|---" * (1 + len(ways)) + "|"]
    for what in (DATA, TRAINING):
        rates = [row["images_per_second"] for row in result["rows"] if row["what"] == what]
        lines.append(f"| {what} | {' | '.join(f'{rate:,.0f}' for rate in rates)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main, Config)
