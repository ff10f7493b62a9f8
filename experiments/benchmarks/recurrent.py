"""How fast does a character model train, against its peers and what this machine can do?

Answer: A step of an LSTM of 2×256 takes 128 ms, in Flax 125 and in PyTorch 160; with adders 2.4
times as long, with signs 2.5, and with the normalisations alone 1.4.

One training step (forward, backward, Adam) of an LSTM of two layers of 256 units on windows of 64
characters of 65, batches of 64: in this kit, in Flax with `nn.RNN` of its own cell, both by the
same training step, and in PyTorch with `torch.nn.LSTM`. Beside them the kit's LSTM with the layer
normalisations that adders need, and so with adders and with signs in the place of products. All
are measured in one process and in turn, several steps a call; times are medians. The limit is the
rate of a large float32 matrix product, measured in the same turns.

On two idle cores of an AMD EPYC (`results/recurrent.json`) a step takes 128 ms, in Flax
125, in PyTorch 160; ours goes at 74 % of the rate of the product. With adders it takes 2.4 times as
long, with signs 2.5, with the normalisations alone 1.4.

Run it on an idle machine, about five minutes on two cores:

    pip install -e '.[benchmark]'
    python experiments/benchmarks/recurrent.py
"""

import dataclasses
import importlib.util
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # or PyTorch's threads spin beside the next

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnlab import kernels, training
from nnlab.arithmetics import ADDER, BINARY
from nnlab.costs.measuring import in_turn
from nnlab.models import LanguageModel
from nnlab.runs import Run
from nnlab.runs.fields import Positive, PositiveInt
from nnlab.runs.script import run

SYMBOLS, LAYERS, STEPS = 65, 2, 4  # steps a call
PRODUCT = "matrix product"


@dataclasses.dataclass(frozen=True)
class Config(Run):
    out: str = "runs/recurrent"
    features: PositiveInt = 256
    """Units of each layer."""
    batch_size: PositiveInt = 64
    window: PositiveInt = 64
    """Characters of a training sequence."""
    repeats: PositiveInt = 15
    """Rounds of timing."""
    patience: Positive = 60.0
    """Seconds of measurements after which one is not repeated further."""


def main(config: Config) -> None:
    peers = importlib.util.find_spec("torch") is not None
    if not peers:
        print("PyTorch is not here, so its row is left out: pip install -e '.[benchmark]'")
    with config.open() as record:
        times = in_turn(calls_of(config, peers), config.repeats, config.patience)
        record.result({"kernels": kernels.status(), "rows": rows_of(config, times)})
        for row in record.rows("rows"):
            print(
                f"{row['body']:24}{row['milliseconds a step']:9.1f} ms"
                f"{row['of nnlab LSTM']:7.2f} times{row['characters a second']:10,.0f} characters/s"
                f"{row['gigaflop a second']:7.0f} GFLOP/s"
                f"{100 * row['of the matrix product']:5.0f} %"
            )


class FlaxModel(nn.Module):
    """The same network from Flax's own layers."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Embed(SYMBOLS, self.features)(x)
        for _ in range(LAYERS):
            layer: Any = nn.RNN(nn.OptimizedLSTMCell(self.features))
            x = layer(x)
        return nn.Dense(SYMBOLS)(x)


def steps_in_jax(model: nn.Module, data: Any, config: Config) -> Callable[[], object]:
    """Return a call of `STEPS` training steps in one program, as `nnlab.runs.fit` makes them."""
    optimizer = optax.adam(1e-3)
    state = training.init(jax.random.key(0), model, optimizer, data[0])
    step = training.train_step(model, optimizer)
    program = jax.jit(training.train_steps(step, config.batch_size)).lower(state, data, STEPS)
    compiled = program.compile()
    return lambda: jax.block_until_ready(compiled(state, data, STEPS))


def steps_in_torch(data: Any, config: Config) -> Callable[[], object]:
    """Return a call of as many steps of PyTorch's layer."""
    import torch  # pyright: ignore[reportMissingImports]

    size = config.features
    embedding, lstm, classifier = (
        torch.nn.Embedding(SYMBOLS, size),
        torch.nn.LSTM(size, size, LAYERS, batch_first=True),
        torch.nn.Linear(size, SYMBOLS),
    )
    adam = torch.optim.Adam(torch.nn.ModuleList([embedding, lstm, classifier]).parameters(), 1e-3)
    batches = [torch.tensor(np.asarray(a)).long().split(config.batch_size) for a in data]

    def call() -> None:
        for x, labels in zip(*batches, strict=True):
            adam.zero_grad()
            logits = classifier(lstm(embedding(x))[0])
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
            adam.step()

    return call


def calls_of(config: Config, peers: bool) -> dict[str, Callable[[], object]]:
    rng = np.random.default_rng(0)
    shape = (STEPS * config.batch_size, config.window)
    data = tuple(jnp.asarray(rng.integers(0, SYMBOLS, shape), jnp.int32) for _ in range(2))
    models = {
        "nnlab LSTM": LanguageModel(SYMBOLS, config.features, LAYERS),
        "Flax LSTM": FlaxModel(config.features),
        "nnlab LSTM, normalised": LanguageModel(SYMBOLS, config.features, LAYERS, norm=True),
        **{
            name: LanguageModel(SYMBOLS, config.features, LAYERS, arithmetic=arithmetic, norm=True)
            for name, arithmetic in (("nnlab adder LSTM", ADDER), ("nnlab binary LSTM", BINARY))
        },
    }
    calls = {name: steps_in_jax(model, data, config) for name, model in models.items()}
    if peers:
        calls["PyTorch LSTM"] = steps_in_torch(data, config)
    a, b = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((4096, 1024), (1024, 1024)))
    product = jax.jit(jnp.matmul).lower(a, b).compile()
    return calls | {PRODUCT: lambda: jax.block_until_ready(product(a, b))}


def rows_of(config: Config, times: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    limit = 2 * 4096 * 1024 * 1024 / np.median(times.pop(PRODUCT))
    # Multiply-adds of a character: each of two products a layer, and the output layer.
    terms = LAYERS * 2 * config.features * 4 * config.features + config.features * SYMBOLS
    characters = config.batch_size * config.window
    first = np.median(times["nnlab LSTM"])
    rows = []
    for body, taken in times.items():
        low, seconds, high = np.percentile(taken / STEPS, (25, 50, 75))
        rate = 3 * 2 * terms * characters / seconds  # forward, and the gradients of both factors
        rows.append(
            {
                "body": body,
                "milliseconds a step": 1e3 * seconds,
                "quartiles": (1e3 * low, 1e3 * high),
                "of nnlab LSTM": np.median(taken) / first,
                "characters a second": characters / seconds,
                "gigaflop a second": rate / 1e9,
                "of the matrix product": rate / limit,
            }
        )
    return rows


if __name__ == "__main__":
    run(main, Config)
