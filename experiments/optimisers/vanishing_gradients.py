"""What keeps a deep network from learning, and which part of the default configuration cures it?

Answer: Sigmoids learn from no start, tanh from Xavier's and ReLU from He's alone. With BatchNorm,
clipping and Adam, 24 ReLU layers reach 97.0 %. Adder layers that start from N(0, 1) come to agree
within a few layers; from N(0, 3²) they reach 92.8 %.

Known: a sigmoid's slope is 1/4 at most, so each layer takes at least that from a gradient, and
large weights saturate it (Glorot & Bengio, AISTATS 2010); ReLU layers keep sizes from N(0, 2 /
inputs), and lose a factor of sqrt(2) each way from Xavier's variance (He et al., ICCV 2015,
https://arxiv.org/abs/1502.01852); BatchNorm makes a layer indifferent to the scale of its weights
(Ioffe & Szegedy, ICML 2015, https://arxiv.org/abs/1502.03167), and with ReLU it makes gradients
grow by sqrt(pi / (pi - 1)) = 1.21 a layer at the start (Yang et al., A mean field theory of batch
normalization, ICLR 2019, https://arxiv.org/abs/1902.08129).

Ours, 24 hidden layers of 64 units on the digits, 20 epochs, means over seeds 0 to 2
(`results/vanishing_gradients.json` and `.png`; 6 minutes of processor time on two cores of an AMD
EPYC, 4 of them where programs were compiled before, as most were for this result). README.md has
the norms of the gradient of the first and the last hidden layer's weights at the start; the share
of units and images at which the activation has less than 1 % of its largest slope; test accuracy in
percent after SGD with momentum at 0.001, 0.01 and 0.1, or after the default recipe with Adam at
0.0001, 0.001 and 0.01. Whoever answers with one class has about 10, often 8.06.

A sigmoid learns from no start: its gradients vanish, or do so a little less where wide weights
saturate it. Tanh does from Xavier's start and ReLU from He's, each alone of its starts, though two
of the nine ReLU networks diverged. BatchNorm makes up for a start a hundred times too small, and
all three rates end well above chance; its gradients do grow, by 80 over the layers or 1.21 each.
Clipping turns that into the best of SGD, at a high rate, and holds it up at low ones, where it
shortens every step. Adam is a little better yet, and needs its high rate in so few steps. That tanh
from Xavier does as well without any of it is true of this small problem.

ReLUs shut for half of what they see, as they should; without BatchNorm a fifth of the units do so
for every image ("shut for all" in the result). Adders without BatchNorm are all below 0 and shut.
From the published N(0, 1) BatchNorm is no cure: units come to agree within a few layers, and no
gradient is left (`nnlab.layers.initializers`). Centres three times as wide keep units apart, the
adders' own rate lets them learn, and the default configuration comes to 93 %.

    python experiments/optimisers/vanishing_gradients.py
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from nnlab import figures, runs, training, vision
from nnlab.arithmetics import ADDER, FLOAT, Arithmetic
from nnlab.figures.panels import Line, Panel, figure_panels
from nnlab.layers import AdderDense
from nnlab.models import MLP
from nnlab.ops.activations import logsig, tansig
from nnlab.optim import adder_recipe, deep_recipe
from nnlab.runs.fields import PositiveInt, Seed, Some, SomeOf
from nnlab.runs.script import run

SGD_RATES, ADAM_RATES = (0.001, 0.01, 0.1), (1e-4, 1e-3, 1e-2)
normal, xavier = nn.initializers.normal, nn.initializers.xavier_normal()


def sgd(steps: int, rate) -> optax.GradientTransformation:
    return optax.sgd(optax.cosine_decay_schedule(rate, steps), 0.9)


def clipped_sgd(steps: int, rate) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), sgd(steps, rate))


class Row(NamedTuple):
    """A network, how it learns, and in which panel its gradients are drawn."""

    name: str
    panel: str
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    start: Any = None  # the arithmetic's own
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


NAMES = tuple(row.name for row in ROWS)


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/vanishing_gradients"
    train_images: vision.TrainImages = None
    networks: Annotated[tuple[str, ...], SomeOf(NAMES)] = NAMES
    depth: PositiveInt = 24
    """Hidden layers."""
    width: PositiveInt = 64
    """Units of each hidden layer."""
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 64
    seeds: Some[Seed] = (0, 1, 2)
    """Seeds to average over."""


def main(config: Config) -> None:
    images = vision.prepared(vision.load("digits"), train_images=config.train_images)
    train, test = images.train, images.test
    training.steps_per_epoch(train, config.batch_size)  # raises if the batch is too large
    rows = [row for row in ROWS if row.name in config.networks]
    with config.open() as record:
        for row in rows:
            record.row(measure(row, train, test, config), "rows")
        record.result({"minutes": record.minutes})
        results = record.rows("rows")
        record.figure(figure(rows, results))
        figures.print_table([{k: v for k, v in row.items() if k != "norms"} for row in results])


def at_the_start(model: MLP, row: Row, state: training.State, batch) -> dict[str, jax.Array]:
    """Return each layer's gradient norm [depth + 1], and how much the activations shut."""

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
    """Return the means over the seeds, with a test accuracy for each of the row's rates."""
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
    def trained(rate, key, train, test):
        optimizer = row.optimizer(steps, rate)
        state = training.init(key, model, optimizer, train[0])
        start = at_the_start(model, row, state, jax.tree.map(lambda a: a[:256], train))
        epoch = training.train_epoch(training.train_step(model, optimizer), config.batch_size)
        state = lax.fori_loop(0, config.epochs, lambda _, state: epoch(state, train)[0], state)
        accuracy = training.evaluation(model)(state, test)["accuracy"]
        return start | {"accuracy": accuracy, "diverged": state.step < steps}

    def at_rate(rate):
        found = [trained(rate, jax.random.key(seed), train, test) for seed in config.seeds]
        return jax.tree.map(lambda *values: np.mean(values, axis=0), *found)

    found = [at_rate(rate) for rate in row.rates]
    start = found[0]
    by_rate = zip(("low", "middle", "high"), found, strict=True)
    return {
        "network": row.name,
        "first layer": float(start["norms"][0]),
        "last layer": float(start["norms"][-2]),
        "shut / %": 100 * float(start["shut"]),
        "shut for all / %": 100 * float(start["shut for all"]),
        **{f"{rate} rate": round(100 * float(one["accuracy"]), 2) for rate, one in by_rate},
        "diverged": round(len(config.seeds) * float(sum(one["diverged"] for one in found))),
        "norms": start["norms"].tolist(),
    }


def figure(rows: list[Row], results: list[dict[str, Any]]):
    """Draw gradient norms by layer; networks that start alike share a line."""
    panels: dict[str, list[Line]] = {}
    for row, found in zip(rows, results, strict=True):
        lines, norms = panels.setdefault(row.panel, []), found["norms"][:-1]
        if not any(np.allclose(norms, line.y, rtol=1e-3) for line in lines):
            lines.append(Line(row.name, range(1, len(norms) + 1), norms, len(lines)))
    label = "norm of the gradient at the start"
    return figure_panels(
        [Panel(name, "layer", label, lines, ("linear", "log")) for name, lines in panels.items()]
    )


if __name__ == "__main__":
    run(main, Config)
