"""What brings the memory of a training step down, and what does it cost in time?

Answer: For an adder ResNet-20 at batch 256, accumulating in 4 parts brings the compiled program
from 620 to 165 MB and computing blocks again to 209 MB, at no loss of time; all measures together
bring it to 56 MB and from 0.49 to 0.56 seconds.

A step of an adder ResNet on CIFAR-sized images, with `adder_recipe`: as it is, and with donated
buffers, the batch in four parts, the blocks computed again for the gradient, bfloat16, and all of
these together. Each runs in a process of its own. Two figures of memory: what the compiled program
says that it takes (arguments and results, those that share a buffer once, and temporaries), and by
how much the process grows at most in two steps above what it held with the arguments, kernels and
threads with it. On a CPU bfloat16 saves little, for the native kernels write float32. Times are
medians.

    python experiments/benchmarks/memory.py
"""

import dataclasses
import itertools
import multiprocessing
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from nnlab import kernels, training
from nnlab.arithmetics import ADDER
from nnlab.costs.measuring import growth, in_turn, planned_bytes
from nnlab.errors import InputError
from nnlab.models import CifarResNet
from nnlab.optim import adder_recipe
from nnlab.runs import Run
from nnlab.runs.fields import PositiveInt, SomeOf
from nnlab.runs.script import run
from nnlab.training import parallel

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Variant:
    donate: bool = False
    accumulate: int = 1
    remat: bool = False
    dtype: str | None = None


VARIANTS = {
    "plain": Variant(),
    "donated buffers": Variant(donate=True),
    "accumulated in 4 parts": Variant(accumulate=4),
    "blocks computed again": Variant(remat=True),
    "bfloat16": Variant(dtype="bfloat16"),
    "all together": Variant(donate=True, accumulate=4, remat=True, dtype="bfloat16"),
}


@dataclasses.dataclass(frozen=True)
class Config(Run):
    out: str = "runs/memory"
    depths: tuple[int, ...] = (20, 32)
    """Layers of the ResNets, 6 n + 2."""
    variants: Annotated[tuple[str, ...], SomeOf(VARIANTS)] = tuple(VARIANTS)
    """What to do to the step."""
    batch: PositiveInt = 256
    repeats: PositiveInt = 5
    """Steps that are timed."""

    def __post_init__(self):
        super().__post_init__()
        for depth in self.depths:
            if depth < 8 or depth % 6 != 2:
                raise InputError(f"--depths takes 6 n + 2 with n at least 1, not {depth}.")
        for name in self.variants:
            if self.batch % VARIANTS[name].accumulate:
                parts = VARIANTS[name].accumulate
                raise InputError(f"--batch must be a multiple of {parts}, not {self.batch}.")


def main(config: Config) -> None:
    fresh = multiprocessing.get_context("spawn")
    with config.open() as record:
        record.result({"kernels": kernels.status()})
        for depth, name in itertools.product(config.depths, config.variants):
            with fresh.Pool(1) as pool:
                record.row(pool.apply(measured, (config, depth, name)), "rows")
        print(markdown(record.contents))


def measured(config: Config, depth: int, name: str) -> Row:
    """Return the row of one variant; called in a fresh process."""
    variant = VARIANTS[name]
    model = CifarResNet(depth, arithmetic=ADDER, dtype=variant.dtype, remat=variant.remat)
    optimizer = adder_recipe(steps=100_000)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(config.batch, 32, 32, 3)).astype(np.float32)
    data = jax.device_put((images, rng.integers(0, 10, config.batch).astype(np.int32)))
    state = training.init(jax.random.key(0), model, optimizer, data[0])
    step = training.train_step(model, optimizer, accumulate=variant.accumulate)
    donated = 0 if variant.donate else ()
    options = parallel.compiler_options()
    compiling = jax.jit(step, donate_argnums=donated, compiler_options=options)
    program = compiling.lower(state, data).compile()

    def run(steps):
        nonlocal state
        for _ in range(steps):
            state, metrics = jax.block_until_ready(program(state, data))
        return metrics

    grown = growth(lambda: run(2))
    metrics = run(1)
    if not jnp.isfinite(metrics["loss"]):
        raise FloatingPointError(f"The loss of {name} is {metrics['loss']}.")
    times = in_turn({name: lambda: run(1)}, config.repeats, patience=60)[name]
    row: Row = {"depth": depth, "variant": name, "grown_bytes": grown}
    row |= {"median": np.median(times), "quartiles": tuple(np.percentile(times, (25, 75)))}
    return row | {f"{part}_bytes": size for part, size in planned_bytes(program).items()}


def markdown(result: Row) -> str:
    """Format the rows as a table in MB, with the seconds of a step."""
    lines = ["| ResNet | step | compiled MB | grown MB | s/step |", "|---" * 5 + "|"]
    for row in result["rows"]:
        sizes = (row.get("compiled_bytes"), row["grown_bytes"])
        cells = ("" if size is None else f"{size / 1e6:.0f}" for size in sizes)
        cells = (f"{row['depth']}", row["variant"], *cells, f"{row['median']:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main, Config)
