"""Does the sign of a gradient lose its direction as the dimension grows?

The cosine between g and sgn g is ||g||_1 / (sqrt(d) ||g||_2), which lies between 1 / sqrt(d) and 1.
"It degrades with dimension" is true of the lower end alone, of gradients with few numbers that
count. Where all directions are alike, its mean is sqrt(d) G(d/2) / (sqrt(pi) G((d+1)/2)), with the
gamma function G, which falls to sqrt(2/pi) = 0.798 and no further. What networks have is measured
here layer by layer while they train, the same network in three arithmetics. Published: a least
cosine of sqrt(0.134) = 0.37 for VGG on CIFAR-10, there of gradient and error together.

And does it matter? Signs, scaled or not, fail on simple functions, and the same signs with error
feedback do not. Counter-examples of Karimireddy et al. (Error Feedback Fixes SignSGD, ICML 2019,
https://arxiv.org/abs/1901.09847), 1 to 3: a slope of 1/4 whose gradients are 4 or, three times as
often, -1; eps |x1 + x2| + |x1 - x2|; and least squares with the rows ±(1, -1) + eps (1, 1).

Ours, seed 0, a minute alone and two beside other programs on two cores of an AMD EPYC
(`results/sign_direction.json` and `.png`; 1,437 digits, 20 epochs). Least cosine of an
epoch's mean in any layer, and what the worst case of that layer would be:

========  ======  ===========  =================
network   least   1 / sqrt(d)  layer
========  ======  ===========  =================
CNN       0.592   0.020        classifier
AdderNet  0.602   0.020        classifier
BNN       0.545   0.020        classifier
========  ======  ===========  =================

All convolutions stay between 0.67 and 0.80. From 4,608 to 18,432 weights 1 / sqrt(d) halves, and
the least cosine goes from 0.73 to 0.70 (CNN), 0.67 to 0.71 (AdderNet) and 0.77 to 0.77 (BNN). What
counts is how unequal the numbers are, most of all in classifiers. The functions after 1,000 steps,
that began at 0.25, 1 and 2:

================  =======  =======  ===========  ==========
function          SGD      signSGD  scaled sign  EF-signSGD
================  =======  =======  ===========  ==========
1, slope          0.071    0.929    0.071        0.071
2, absolute       2e-7     1.000    1.000        2e-5
3, least squares  4e-9     2.13     2.00         3e-9
================  =======  =======  ===========  ==========

Of one number the scaled sign is the number itself, so in the first example only the plain sign
climbs. In the others each gradient has the sign (1, -1) or (-1, 1), and x1 + x2 never changes.

    python experiments/optimisers/sign_direction.py
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnlab import (
    figures,
    runs,
    training,
    vision,
)
from nnlab.arithmetics import ADDER, BINARY, FLOAT
from nnlab.figures.panels import Line, Panel, figure_panels
from nnlab.models import SmallCNN
from nnlab.optim import adder_recipe, ef_sign_sgd, scaled_sign
from nnlab.runs.script import (
    check_positive,
    check_positive_integer,
    check_seed,
    run,
)

ARITHMETICS = {"CNN": FLOAT, "AdderNet": ADDER, "BNN": BINARY}
DIMENSIONS = (1, 2, 3, 10, 30, 100, 300, 1000, 3000, 10_000)
OPTIMIZERS = {
    "SGD": optax.sgd,
    "signSGD": optax.sign_sgd,
    "scaled sign": lambda rate: optax.chain(scaled_sign(), optax.sgd(rate)),
    "EF-signSGD": ef_sign_sgd,
}


@dataclasses.dataclass(frozen=True)
class Config:
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.1
    """Of SGD at the start of its cosine."""
    draws: int = 1000
    """Of random gradients for each dimension."""
    steps: int = 1000
    """On the counter-examples."""
    rate: float = 0.01
    """On the counter-examples, falling to 0 in a line."""
    seed: int = 0
    out: str = "runs/sign_direction"
    overwrite: bool = False

    def __post_init__(self):
        for name in ("epochs", "batch_size", "draws", "steps"):
            check_positive_integer(name, getattr(self, name))
        check_positive("learning_rate", self.learning_rate)
        check_positive("rate", self.rate)
        check_seed("seed", self.seed)


def cosine(g: jax.Array) -> jax.Array:
    """Between g and its sign, in [1 / sqrt(d), 1]; of a zero gradient 0."""
    norm = jnp.sqrt(g.size * jnp.sum(jnp.square(g)))
    return jnp.sum(jnp.abs(g)) / jnp.maximum(norm, jnp.finfo(g.dtype).tiny)


def formulas(key: jax.Array, draws: int) -> list[dict[str, float]]:
    """By dimension: the isotropic mean, drawn and by its formula, and one number among zeros."""

    def of_dimension(d):
        log = math.lgamma(d / 2) - math.lgamma((d + 1) / 2)
        mean = jnp.mean(jax.lax.map(lambda k: cosine(jax.random.normal(k, (d,))), keys))
        formula = math.sqrt(d / math.pi) * math.exp(log)
        return {"d": d, "drawn": float(mean), "isotropic": formula, "sparse": 1 / math.sqrt(d)}

    keys = jax.random.split(key, draws)
    return [of_dimension(d) for d in DIMENSIONS]


def watch_cosines() -> optax.GradientTransformation:
    """Sums the cosine of each leaf over the steps, in its state; passes gradients on."""

    def init(params):
        return jax.tree.map(lambda _: jnp.zeros(()), params)

    def update(updates, state, params=None):
        return updates, jax.tree.map(lambda total, g: total + cosine(g), state, updates)

    return optax.GradientTransformation(init, update)


def of_network(arithmetic, train, config: Config) -> dict[str, dict[str, Any]]:
    """By the name of a layer: its number of weights, and the mean cosine in each epoch."""
    model = SmallCNN(arithmetic=arithmetic, classifier=arithmetic)
    steps = training.steps_per_epoch(train, config.batch_size)
    recipe = adder_recipe(config.epochs * steps, config.learning_rate, binary_learning_rate=0.01)
    optimizer = optax.chain(watch_cosines(), recipe)
    state: Any = training.init(jax.random.key(config.seed), model, optimizer, train[0])
    epoch = training.train_epoch(training.train_step(model, optimizer), config.batch_size)
    rows = {
        path[0].key: {"weights": leaf.size, "cosine": []}
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)
        if path[-1].key.endswith("kernel")
    }
    for _ in range(config.epochs):
        before = state.opt_state[0]
        state, _ = epoch(state, train)
        means = jax.tree.map(lambda a, b: float(a - b) / steps, state.opt_state[0], before)
        for path, mean in jax.tree_util.tree_leaves_with_path(means):
            if path[-1].key.endswith("kernel"):
                rows[path[0].key]["cosine"].append(round(mean, 4))
    return rows


def bimodal(key: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.where(jax.random.bernoulli(key, 0.25), 4.0, -1.0) * x[0]


def absolute(key: jax.Array, x: jax.Array) -> jax.Array:
    return 0.5 * jnp.abs(x[0] + x[1]) + jnp.abs(x[0] - x[1])


def least_squares(key: jax.Array, x: jax.Array) -> jax.Array:
    row = jax.random.rademacher(key, (), x.dtype) * jnp.array([1.0, -1.0]) + 0.5
    return 2 * jnp.square(row @ x)


# The function of one draw, its mean over draws, and the start.
EXAMPLES: dict[str, tuple[Callable, Callable, list[float]]] = {
    "1: slope 1/4": (bimodal, lambda x: x[0] / 4, [1.0]),
    "2: absolute": (
        absolute,
        lambda x: jnp.abs(x[0] + x[1]) / 2 + jnp.abs(x[0] - x[1]),
        [1.0, 1.0],
    ),
    "3: least squares": (
        least_squares,
        lambda x: 2 * jnp.square(x[0] - x[1]) + jnp.square(x[0] + x[1]) / 2,
        [1.0, 1.0],
    ),
}


def descend(make: Callable, example: str, config: Config) -> list[float]:
    """The mean function before each step and after the last."""
    draw, mean, start = EXAMPLES[example]
    optimizer = make(optax.linear_schedule(config.rate, 0, config.steps))

    def step(carry, key):
        x, state = carry
        updates, state = optimizer.update(jax.grad(draw, 1)(key, x), state, x)
        return (optax.apply_updates(x, updates), state), mean(x)

    x: Any = jnp.array(start)
    keys = jax.random.split(jax.random.key(config.seed), config.steps)
    (x, _), values = jax.jit(lambda c: jax.lax.scan(step, c, keys))((x, optimizer.init(x)))
    return np.append(values, mean(x)).tolist()


def figure(rows, networks, paths, epochs: int):
    by_dimension = [
        Line("isotropic, formula", DIMENSIONS, [row["isotropic"] for row in rows], 0),
        Line("isotropic, drawn", DIMENSIONS, [row["drawn"] for row in rows], 1, dashed=True),
        Line("one number among zeros", DIMENSIONS, [row["sparse"] for row in rows], 2),
    ]
    by_epoch = [
        Line("" if i else name, range(1, epochs + 1), layer["cosine"], colour)
        for colour, (name, layers) in enumerate(networks.items())
        for i, layer in enumerate(layers.values())
    ]
    by_epoch.append(Line("sqrt(2/pi)", by_epoch[0].x, [0.798] * epochs, dashed=True))
    examples = [
        Panel(
            f"Example {example}",
            "step",
            "function",
            [
                Line(name, range(len(path)), path, colour, dashed=name.startswith("EF"))
                for colour, (name, path) in enumerate(of_example.items())
            ],
        )
        for example, of_example in paths.items()
    ]
    first = Panel("By dimension", "d", "cosine", by_dimension, ("log", "log"))
    return figure_panels(
        [first, Panel("Layers in training", "epoch", "cosine", by_epoch), *examples]
    )


def main(config: Config) -> None:
    start = time.perf_counter()
    train, _ = vision.standardized(vision.load("digits", None))
    folder = runs.RunFolder.create(config.out, config, config.overwrite)
    rows = formulas(jax.random.key(config.seed), config.draws)
    networks = {name: of_network(values, train, config) for name, values in ARITHMETICS.items()}
    paths = {
        example: {name: descend(make, example, config) for name, make in OPTIMIZERS.items()}
        for example in EXAMPLES
    }
    layers = [
        {
            "network": name,
            "layer": layer,
            "weights": row["weights"],
            "1 / sqrt(d)": row["weights"] ** -0.5,
        }
        | {"least": min(row["cosine"]), "last": row["cosine"][-1]}
        for name, of_name in networks.items()
        for layer, row in of_name.items()
    ]
    ends = [
        {"function": example} | {name: path[-1] for name, path in of_example.items()}
        for example, of_example in paths.items()
    ]
    minutes = round((time.perf_counter() - start) / 60, 1)
    folder.write_result(
        runs.provenance()
        | {"config": dataclasses.asdict(config), "minutes": minutes, "by_dimension": rows}
        | {"networks": networks, "examples": ends}
    )
    figure(rows, networks, paths, config.epochs).savefig(folder.curves, dpi=120)
    for table in (rows, layers, ends):
        figures.print_table(table)


if __name__ == "__main__":
    run(main, Config)
