"""How do optimisers find their way, and should biases decay?

Answer: Down Rosenbrock's valley Newton's method comes below 1e-6 in 5 steps, after a climb to
1,412, L-BFGS in 32 and momentum in 450; plain gradient descent and RMSProp do not in 500, whatever
their rate. Biases may decay: on the digits it makes no difference, and next to none on a curve that
needs a large bias. To leave biases out costs nothing on the digits, and on the curve everything.

Known: first steps of Adam are as long as its rate, whatever the gradient, and those of RMSProp
without bias correction sqrt(10) times as long. Textbooks leave biases without decay, lest they
underfit (Goodfellow, Bengio & Courville, Deep Learning, 2016, section 7.1).

Each optimiser has the rate, of nine from 0.0001 to 1, that brings it lowest in the end. scipy's
minimisers are beside them as they come, with gradients by JAX. The second table is of two layers of
64 tanh units, by Adam at 0.003 with decoupled decay (AdamW): the cross-entropy of the digits' test
images, and the root mean square error on 41 points of 5 + sin(pi x). A network of tanh units
without biases is odd in x, so that it cannot be 5 anywhere near 0.

Ours, seeds 0 to 2, 3 minutes of processor time on two cores of an AMD EPYC
(`results/optimisers_on_surfaces.json` and `.png`).

    python experiments/classics/optimisers_on_surfaces.py
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
import scipy.optimize
from matplotlib.figure import Figure

from nnlab import figures, runs, training, vision
from nnlab.classics.surfaces import Path, bowl, newton_path, path, rosenbrock
from nnlab.figures.plots import COLOURS, INK, STYLE
from nnlab.models import MLP
from nnlab.runs.fields import PositiveInt, Seed, Some
from nnlab.runs.script import run

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
OPTIMIZERS: dict[str, Callable[[float], Any]] = {
    "gradient descent": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, 0.9),
    "Nesterov": lambda rate: optax.sgd(rate, 0.9, nesterov=True),
    "Adagrad": optax.adagrad,
    "RMSProp": optax.rmsprop,
    "Adam": optax.adam,
}
SURFACES = {"Rosenbrock": (rosenbrock, (-1.2, 1.0)), "bowl of condition 50": (bowl(50.0), (4, 1))}
SCIPY = ("BFGS", "CG", "L-BFGS-B", "Nelder-Mead")
DECAYS = (0.0, 0.01, 0.1, 1.0)
BIASES = ("none", "kept", "decayed")


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/optimisers_on_surfaces"
    train_images: vision.TrainImages = None
    steps: PositiveInt = 500
    """Steps on the surfaces."""
    epochs: PositiveInt = 40
    """Epochs on the digits, and tenths of the steps on the curve."""
    seeds: Some[Seed] = (0, 1, 2)


def main(config: Config) -> None:
    digits = vision.prepared(vision.load("digits"), train_images=config.train_images)
    with config.open() as record:
        paths: dict[str, dict[str, Path]] = {}
        with jax.enable_x64():
            for surface in SURFACES:
                paths[surface] = on_surface(surface, config.steps, record)
        for bias in BIASES:
            row: dict[str, object] = {"biases": bias}
            for decay in DECAYS:
                ends = [on_digits(digits, bias, decay, seed, config) for seed in config.seeds]
                row[f"digits, decay {decay:g}"] = float(np.mean(ends))
            for decay in DECAYS:
                ends = [on_curve(bias, decay, seed, config) for seed in config.seeds]
                row[f"curve, decay {decay:g}"] = float(np.mean(ends))
            record.row(row, "biases")
        record.result({"minutes": record.minutes})
        record.figure(figure(paths))
        figures.print_table(record.rows())
        figures.print_table(record.rows("biases"))


def on_surface(surface: str, steps: int, record: runs.Record) -> dict[str, Path]:
    """Follow all optimisers down a surface; write a row for each, and return their paths."""
    f, where = SURFACES[surface]
    start = jnp.array(where, float)
    paths = {}
    for name, optimizer in OPTIMIZERS.items():
        tried = {rate: path(optimizer(rate), f, start, steps) for rate in RATES}
        rate = min(tried, key=lambda r: float(jnp.nan_to_num(tried[r].values[-1], nan=jnp.inf)))
        paths[name] = tried[rate]
        record.row(as_row(surface, name, rate, paths[name].values, steps))
    for name, found in (
        ("L-BFGS", path(optax.lbfgs(), f, start, 100)),
        ("Newton", newton_path(f, start, 20)),
    ):
        paths[name] = found
        record.row(as_row(surface, name, "", found.values, len(found.values) - 1))
    value = jax.jit(f)
    for name in SCIPY:
        gradient = None if name == "Nelder-Mead" else lambda x: np.asarray(jax.grad(f)(x))
        found = scipy.optimize.minimize(lambda x: float(value(x)), where, method=name, jac=gradient)
        row = {"surface": surface, "optimiser": f"scipy's {name}", "rate": "", "steps": found.nit}
        record.row(row | {"value": float(found.fun), "steps to 1e-6": ""})
    return paths


def as_row(surface: str, name: str, rate: object, values: jax.Array, steps: int) -> dict[str, Any]:
    """Return a row of the table."""
    below = np.asarray(values) < 1e-6
    return {
        "surface": surface,
        "optimiser": name,
        "rate": rate,
        "steps": steps,
        "value": float(values[-1]),
        "steps to 1e-6": int(np.argmax(below)) if below.any() else "",
    }


def learner(rate: float, bias: str, decay: float) -> optax.GradientTransformation:
    """Return Adam with decay of the weights, and of the biases too, if they learn and decay."""

    def kinds(params):
        return jax.tree_util.tree_map_with_path(
            lambda place, _: "bias" if place[-1].key == "bias" else "kernel", params
        )

    biases = {
        "none": optax.set_to_zero(),
        "kept": optax.adam(rate),
        "decayed": optax.adamw(rate, weight_decay=decay),
    }
    kernels = optax.adamw(rate, weight_decay=decay)
    return optax.partition({"bias": biases[bias], "kernel": kernels}, kinds)


def on_digits(images: vision.Images, bias: str, decay: float, seed: int, config: Config) -> float:
    """Train on the digits; return the cross-entropy of the test images."""
    model = MLP(depth=2, width=64, norm=False, activation=jnp.tanh)
    optimizer = learner(3e-3, bias, decay)
    state = training.init(jax.random.key(seed), model, optimizer, images.train[0])
    epoch = training.train_epoch(training.train_step(model, optimizer), 64)
    for _ in range(config.epochs):
        state, _ = epoch(state, images.train)
    return float(training.evaluation(model)(state, images.test)["loss"])


def on_curve(bias: str, decay: float, seed: int, config: Config) -> float:
    """Fit 5 + sin(pi x); return the root of the mean squared error."""
    x = jnp.linspace(-1, 1, 41)[:, None]
    y = 5 + jnp.sin(jnp.pi * x)
    model = MLP(classes=1, depth=2, width=64, norm=False, activation=jnp.tanh)
    optimizer = learner(3e-3, bias, decay)
    params = model.init(jax.random.key(seed), x)["params"]

    def loss(params):
        return jnp.mean((jnp.asarray(model.apply({"params": params}, x)) - y) ** 2)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    start = params, optimizer.init(params)
    (params, _), _ = jax.lax.scan(step, start, length=10 * config.epochs)
    return float(jnp.sqrt(loss(params)))


@matplotlib.rc_context({**STYLE, "axes.grid": False})
def figure(paths: dict[str, dict[str, Path]]) -> Figure:
    """Draw the paths on each surface, and the values along them."""
    drawn = Figure(figsize=(12, 6.4))
    places = drawn.subplots(2, 2, width_ratios=[1.2, 1])
    for (name, found), (left, right) in zip(paths.items(), places, strict=True):
        f, start = SURFACES[name]
        box = ((-1.8, 1.8), (-0.7, 1.8)) if f is rosenbrock else ((-4.5, 4.5), (-1.3, 1.3))
        grid = np.stack(np.meshgrid(*(np.linspace(*side, 200) for side in box)), -1)
        heights = np.log10(np.asarray(jax.vmap(jax.vmap(f))(jnp.asarray(grid))) + 1e-3)
        left.contour(grid[..., 0], grid[..., 1], heights, 14, colors="#c9ced4", linewidths=0.7)
        for colour, (optimizer, taken) in zip(COLOURS, found.items(), strict=False):
            points = np.asarray(taken.points)
            left.plot(*points.T, "-", color=colour, linewidth=1, label=optimizer)
            values = np.asarray(taken.values)[1:]
            right.plot(range(1, len(values) + 1), values, color=colour, linewidth=1)
        left.plot(*start, "o", color=INK, markersize=4)
        left.set(title=name, xlabel="x1", ylabel="x2", xlim=box[0], ylim=box[1])
        right.set(xlabel="step", ylabel="value", yscale="log", ylim=(1e-13, 1e4), xscale="log")
    drawn.legend(*places[0, 0].get_legend_handles_labels(), loc="outside right center")
    return drawn


if __name__ == "__main__":
    run(main, Config)
