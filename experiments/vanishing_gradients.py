"""What keeps a deep network from learning, and which part of the default configuration cures it?

QUESTION

    python experiments/vanishing_gradients.py
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from nnlab import analysis, data, training
from nnlab.analysis.panels import Line, Panel, figure_panels
from nnlab.arithmetics import ADDER, FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.layers import AdderDense
from nnlab.models import MLP
from nnlab.ops.activations import logsig, tansig
from nnlab.optim import adder_recipe, deep_recipe, schedules
from nnlab.training.script import check_choices, check_positive_integer, check_seed, run

SGD_RATES, ADAM_RATES = (0.001, 0.01, 0.1), (1e-4, 1e-3, 1e-2)
normal, xavier = nn.initializers.normal, nn.initializers.xavier_normal()


def sgd(steps: int, rate) -> optax.GradientTransformation:
    return optax.sgd(schedules.cosine(rate, steps), 0.9)


def clipped_sgd(steps: int, rate) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), sgd(steps, rate))


class Row(NamedTuple):
    """A network, how it learns, and in which panel its gradients are drawn."""

    name: str
    panel: str
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    start: Any = None  # that of the arithmetic
    norm: bool = False
    arithmetic: Arithmetic = FLOAT
    optimizer: Callable[..., optax.GradientTransformation] = sgd
    rates: tuple[float, float, float] = SGD_RATES


STEEPEST = {logsig: 0.25, tansig: 1.0, nn.relu: 1.0}  # slope of an activation
relu = functools.partial(Row, panel="ReLU")
adder = functools.partial(Row, panel="Adder", arithmetic=ADDER)
wide = functools.partial(
    adder,
    arithmetic=dataclasses.replace(
        ADDER, dense=functools.partial(AdderDense, kernel_init=normal(3.0))
    ),
)
ROWS = [
    Row("sigmoid, N(0, 0.01²)", "Sigmoid and tanh", logsig, normal(0.01)),
    Row("sigmoid, N(0, 1)", "Sigmoid and tanh", logsig, normal(1.0)),
    Row("sigmoid, Xavier", "Sigmoid and tanh", logsig, xavier),
    Row("tanh, N(0, 1)", "Sigmoid and tanh", tansig, normal(1.0)),
    Row("tanh, Xavier", "Sigmoid and tanh", tansig, xavier),
    relu("ReLU, N(0, 0.01²)", start=normal(0.01)),
    relu("ReLU, N(0, 0.01²), BatchNorm", start=normal(0.01), norm=True),
    relu("ReLU, Xavier", start=xavier),
    relu("ReLU, He"),
    relu("ReLU, He, BatchNorm", norm=True),
    relu("ReLU, BatchNorm, clipping", norm=True, optimizer=clipped_sgd),
    relu("ReLU, default", norm=True, optimizer=deep_recipe, rates=ADAM_RATES),
    adder("adder, N(0, 1)"),
    adder("adder, N(0, 1), BatchNorm", norm=True),
    adder("adder, N(0, 1), default", norm=True, optimizer=deep_recipe, rates=ADAM_RATES),
    wide("adder, N(0, 3²), BatchNorm", norm=True),
    wide("adder, N(0, 3²), its rate", norm=True, optimizer=adder_recipe),
    wide("adder, N(0, 3²), default", norm=True, optimizer=deep_recipe, rates=ADAM_RATES),
]


@dataclasses.dataclass(frozen=True)
class Config:
    networks: tuple[str, ...] = tuple(row.name for row in ROWS)
    depth: int = 24
    """Hidden layers."""
    width: int = 64
    epochs: int = 20
    batch_size: int = 64
    seeds: tuple[int, ...] = (0, 1, 2)
    out: str = "runs/vanishing_gradients"
    overwrite: bool = False

    def __post_init__(self):
        check_choices("networks", self.networks, [row.name for row in ROWS])
        if not self.seeds:
            raise InputError("--seeds must be one seed or more, not none.")
        for seed in self.seeds:
            check_seed("seeds", seed)
        for name in ("depth", "width", "epochs", "batch_size"):
            check_positive_integer(name, getattr(self, name))


def at_the_start(model: MLP, row: Row, state: training.State, batch) -> dict[str, jax.Array]:
    """Norm of each layer's gradient [depth + 1], and the shares of what the activations shut."""

    def loss(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        mutable = ["batch_stats", "intermediates"]
        logits, kept = model.apply(
            variables, batch[0], train=True, mutable=mutable, capture_intermediates=True
        )
        return training.cross_entropy(logits, batch[1]), kept["intermediates"]

    grads, outputs = jax.grad(loss, has_aux=True)(state.params)
    numbers = range(1, model.depth + 1)
    kernels = [grads[name] for name in (*(f"dense{n}" for n in numbers), "classifier")]
    norms = [optax.global_norm({k: v for k, v in g.items() if k != "bias"}) for g in kernels]
    before = [outputs[f"{'bn' if row.norm else 'dense'}{n}"]["__call__"][0] for n in numbers]
    before = jnp.stack(before)  # [depth, images, width]
    _, slopes = jax.jvp(row.activation, (before,), (jnp.ones_like(before),))
    shut = jnp.abs(slopes) < 0.01 * STEEPEST[row.activation]
    return {"norms": jnp.stack(norms), "shut": shut.mean(), "shut for all": shut.all(1).mean()}


def measure(row: Row, train, test, config: Config) -> dict[str, Any]:
    """Means over the seeds, of the test accuracy at each of the row's rates."""
    model = MLP(
        arithmetic=row.arithmetic,
        depth=config.depth,
        width=config.width,
        activation=row.activation,
        kernel_init=row.start,
        norm=row.norm,
    )
    steps = config.epochs * training.steps_per_epoch(train, config.batch_size)

    @jax.jit
    def of_run(rate, key, train, test):
        optimizer = row.optimizer(steps, rate)
        state = training.init(key, model, optimizer, train[0])
        start = at_the_start(model, row, state, jax.tree.map(lambda a: a[:256], train))
        epoch = training.train_epoch(training.train_step(model, optimizer), config.batch_size)
        state = lax.fori_loop(0, config.epochs, lambda _, state: epoch(state, train)[0], state)
        accuracy = training.evaluation(model)(state, test)["accuracy"]
        return start | {"accuracy": accuracy, "diverged": state.step < steps}

    def of_rate(rate):
        found = [of_run(rate, jax.random.key(seed), train, test) for seed in config.seeds]
        return jax.tree.map(lambda *values: np.mean(values, axis=0), *found)

    found = [of_rate(rate) for rate in row.rates]
    start = found[0]
    by_rate = zip(("low", "middle", "high"), found, strict=True)
    return {
        "network": row.name,
        "first layer": float(start["norms"][0]),
        "last layer": float(start["norms"][-2]),
        "shut / %": 100 * float(start["shut"]),
        "shut for all / %": 100 * float(start["shut for all"]),
        **{f"{rate} rate": round(100 * float(of["accuracy"]), 2) for rate, of in by_rate},
        "diverged": round(len(config.seeds) * float(sum(of["diverged"] for of in found))),
        "norms": start["norms"].tolist(),
    }


def figure(rows: list[Row], results: list[dict[str, Any]]):
    """Norms of gradients by layer; networks that start alike are one line."""
    panels: dict[str, list[Line]] = {}
    for row, found in zip(rows, results, strict=True):
        lines, norms = panels.setdefault(row.panel, []), found["norms"][:-1]
        if not any(np.allclose(norms, line.y, rtol=1e-3) for line in lines):
            lines.append(Line(row.name, range(1, len(norms) + 1), norms, len(lines)))
    label = "norm of the gradient at the start"
    return figure_panels(
        [Panel(name, "layer", label, lines, ("linear", "log")) for name, lines in panels.items()]
    )


def main(config: Config) -> None:
    start = time.perf_counter()
    train, test = data.standardized(data.load("digits", None))
    training.steps_per_epoch(train, config.batch_size)
    folder = training.RunFolder.create(config.out, config, config.overwrite)
    rows = [row for row in ROWS if row.name in config.networks]
    results = [measure(row, train, test, config) for row in rows]
    minutes = round((time.perf_counter() - start) / 60, 1)
    folder.write_result(
        training.provenance()
        | {"config": dataclasses.asdict(config), "minutes": minutes, "rows": results}
    )
    figure(rows, results).savefig(folder.curves, dpi=120)
    analysis.print_table([{k: v for k, v in row.items() if k != "norms"} for row in results])


if __name__ == "__main__":
    run(main, Config)
