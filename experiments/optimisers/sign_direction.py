"""Does the sign of a gradient lose its direction as the dimension grows?

Answer: Only where few numbers of the gradient count: then the cosine falls as 1/sqrt(d). Where all
directions are alike it stays at 0.798, and in layers of networks between 0.54 and 0.80. Where signs
fail, error feedback does not.

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
(`results/sign_direction.json` and `.png`; 1,437 digits, 20 epochs). README.md has the least cosine
of an epoch's mean in each layer, and 1 / sqrt(d), which the worst case of that layer would be. All
convolutions stay between 0.67 and 0.80. From 4,608 to 18,432 weights 1 / sqrt(d) halves, and the
least cosine goes from 0.73 to 0.70 (CNN), 0.67 to 0.71 (AdderNet) and 0.77 to 0.77 (BNN). What
counts is how unequal the numbers are, most of all in classifiers. The functions, whose values after
1,000 steps are in README.md, began at 0.25, 1 and 2. For one number the scaled sign is the number
itself, so in the first example only the plain sign climbs. In the others each gradient has the sign
(1, -1) or (-1, 1), and x1 + x2 never changes.

    python experiments/optimisers/sign_direction.py
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnlab import figures, runs, training, vision
from nnlab.arithmetics import ADDER, BINARY, FLOAT
from nnlab.figures.panels import Line, Panel, figure_panels
from nnlab.models import SmallCNN
from nnlab.optim import adder_recipe, ef_sign_sgd, scaled_sign
from nnlab.runs.fields import Positive, PositiveInt, Seed
from nnlab.runs.script import run

ARITHMETICS = {"CNN": FLOAT, "AdderNet": ADDER, "BNN": BINARY}
DIMENSIONS = (1, 2, 3, 10, 30, 100, 300, 1000, 3000, 10_000)
OPTIMIZERS = {
    "SGD": optax.sgd,
    "signSGD": optax.sign_sgd,
    "scaled sign": lambda rate: optax.chain(scaled_sign(), optax.sgd(rate)),
    "EF-signSGD": ef_sign_sgd,
}


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/sign_direction"
    train_images: vision.TrainImages = None
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 64
    learning_rate: Positive = 0.1
    """Peak learning rate of the networks' SGD (cosine decay)."""
    draws: PositiveInt = 1000
    """Random gradients drawn for each dimension."""
    steps: PositiveInt = 1000
    """Steps on the counter-examples."""
    rate: Positive = 0.01
    """Learning rate on the counter-examples, falling linearly to 0."""
    seed: Seed = 0


def main(config: Config) -> None:
    images = vision.prepared(vision.load("digits"), train_images=config.train_images)
    train = images.train
    with config.open() as record:
        rows = formulas(jax.random.key(config.seed), config.draws)
        networks = {
            name: layer_cosines(arithmetic, train, config)
            for name, arithmetic in ARITHMETICS.items()
        }
        paths = {
            example: {name: descend(make, example, config) for name, make in OPTIMIZERS.items()}
            for example in EXAMPLES
        }
        ends = [
            {"function": example} | {name: path[-1] for name, path in by_optimizer.items()}
            for example, by_optimizer in paths.items()
        ]
        parts = {"by_dimension": rows, "networks": networks, "examples": ends}
        record.result({"minutes": record.minutes} | parts)
        record.figure(figure(rows, networks, paths, config.epochs))
        for table in (rows, summary(networks), ends):
            figures.print_table(table)


def cosine(g: jax.Array) -> jax.Array:
    """Return the cosine between g and its sign, in [1 / sqrt(d), 1], or 0 for a zero gradient."""
    norm = jnp.sqrt(g.size * jnp.sum(jnp.square(g)))
    return jnp.sum(jnp.abs(g)) / jnp.maximum(norm, jnp.finfo(g.dtype).tiny)


def formulas(key: jax.Array, draws: int) -> list[dict[str, float]]:
    """Return by dimension the isotropic mean, drawn and exact, and one number among zeros."""

    def row(d):
        log = math.lgamma(d / 2) - math.lgamma((d + 1) / 2)
        mean = jnp.mean(jax.lax.map(lambda k: cosine(jax.random.normal(k, (d,))), keys))
        formula = math.sqrt(d / math.pi) * math.exp(log)
        return {"d": d, "drawn": float(mean), "isotropic": formula, "sparse": 1 / math.sqrt(d)}

    keys = jax.random.split(key, draws)
    return [row(d) for d in DIMENSIONS]


def watch_cosines() -> optax.GradientTransformation:
    """Sum the cosine of each leaf over the steps, in the state; the gradients pass unchanged."""

    def init(params):
        return jax.tree.map(lambda _: jnp.zeros(()), params)

    def update(updates, state, params=None):
        return updates, jax.tree.map(lambda total, g: total + cosine(g), state, updates)

    return optax.GradientTransformation(init, update)


def layer_cosines(arithmetic, train, config: Config) -> dict[str, dict[str, Any]]:
    """Train a network; return each layer's number of weights, and its mean cosine in each epoch."""
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


def summary(networks) -> list[dict[str, Any]]:
    """Return a row a layer: its least and its last cosine, beside the worst case."""
    return [
        {"network": name, "layer": layer, "weights": row["weights"]}
        | {"1 / sqrt(d)": row["weights"] ** -0.5}
        | {"least": min(row["cosine"]), "last": row["cosine"][-1]}
        for name, layers in networks.items()
        for layer, row in layers.items()
    ]


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
    """Return the values of the mean function before each step and after the last."""
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
                for colour, (name, path) in enumerate(by_optimizer.items())
            ],
        )
        for example, by_optimizer in paths.items()
    ]
    first = Panel("By dimension", "d", "cosine", by_dimension, ("log", "log"))
    return figure_panels(
        [first, Panel("Layers in training", "epoch", "cosine", by_epoch), *examples]
    )


if __name__ == "__main__":
    run(main, Config)
