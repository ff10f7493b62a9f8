"""How near to the likelihood do CD-1, CD-k and PCD come, and what do they learn of MNIST?

Answer: On bars and stripes the exact gradient comes to -2.66 nats, 0.02 from the best there is;
CD-3 stops at -2.82 and CD-1 at -3.09, where its bias outweighs the gradient. PCD climbs with them,
and then, at a constant rate, its chains no longer follow and it falls to -6.3; with a rate that
falls to 0 it comes to -2.80. On MNIST, after two epochs, estimates are -123 nats for CD-1, -120 for
CD-3 and -159 for PCD, whose samples alone look like digits: chains of the others end in pictures
that are none, and if annealing has missed these, both estimates are too good.

Known: the best mean log-likelihood of the 14 bars and stripes of 3 x 3 is -log 14 = -2.639. On
MNIST machines of 500 hidden units reach about -125 nats by CD-1, -105 by CD-3 and -86 by CD-25, by
annealed importance sampling (Salakhutdinov & Murray, 2008).

Bars and stripes are few enough for the likelihood, its gradient and the mean gradient of CD-k to
be computed exactly (`nnlab.classics.likelihood`): machines of 16 hidden units learn them by plain
steps of 0.1, all examples five times in a batch, 70 chains for PCD. On MNIST, whose pixels are
drawn once as bits, each rule has the same epochs, batches of 100, a rate that falls from 0.1 and
momentum 0.5. The likelihood is estimated with 100 chains of 1,000 steps. Samples are what 1,000
steps of Gibbs sampling make of test digits.

Ours, seeds 0 to 4 for bars and stripes and seed 0 for MNIST, some two minutes on two cores of an
AMD EPYC (`results/rbm.json` and `.png`; its minutes are those of training on MNIST).

    python experiments/classics/rbm.py

It stops and goes on with `--resume`.
"""

import dataclasses
import functools
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from jax import lax
from matplotlib.figure import Figure
from stages import Stages, check_fills
from tiles import filters, tiles

from nnlab import figures, runs, vision
from nnlab.classics import likelihood, rbm
from nnlab.classics.rbm import CD, PCD
from nnlab.figures.plots import COLOURS, STYLE
from nnlab.runs.fields import DataDir, PositiveInt, Seed
from nnlab.runs.script import run

SIZE, CURVE = 3, 50  # of bars and stripes; points of a curve


@dataclasses.dataclass(frozen=True)
class Exact:
    """The gradient of the likelihood itself, as a rule."""

    def __call__(self, key, params, visible, chains):
        return likelihood.expected_gradient(params, visible), chains


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/rbm"
    data_dir: DataDir = None
    train_images: vision.TrainImages = None
    updates: PositiveInt = 10_000
    """Updates on bars and stripes."""
    machines: PositiveInt = 5
    """Machines for each rule on bars and stripes, which differ in their seeds."""
    k: PositiveInt = 3
    """Steps of the longer contrastive divergence."""
    hidden: PositiveInt = 500
    """Hidden units on MNIST."""
    epochs: PositiveInt = 2
    """Passes through MNIST."""
    seed: Seed = 0


def main(config: Config) -> None:
    mnist = vision.load("mnist", config.data_dir)
    bits = jax.random.key(config.seed)
    train = as_bits(bits, mnist.train.images[: config.train_images])
    test = as_bits(jax.random.fold_in(bits, 1), mnist.test.images)
    check_fills(train)
    rules = {"CD-1": CD(1), f"CD-{config.k}": CD(config.k), "PCD-1": PCD(1)}
    with config.open() as record:
        stages = Stages(record)
        curves = {}
        falls = {"PCD-1, falling rate": PCD(1)}
        for name, rule in {"exact": Exact(), **rules, **falls}.items():
            learn = functools.partial(on_bars, rule, name in falls, config)
            curves[name] = stages.row({"rule": name}, "bars", learn)["curve"]
        pictures = {}
        for name, rule in rules.items():
            options = {"epochs": config.epochs, "learning_rate": 0.1, "falls": True}
            params = stages.layer(name, bits, train, config.hidden, rule, **options)
            pictures[name] = params, continued(params, test[:36], config.seed)
            measure = functools.partial(measured, params, train, test, config)
            stages.row({"rule": name}, "digits", measure)
        seconds = stages.record.contents["seconds"]
        for row in record.rows("digits"):
            row["seconds an epoch"] = seconds[row["rule"]] / config.epochs
        record.result({"minutes": round(stages.seconds / 60, 1), "bias": bias_by_steps(config)})
        record.figure(figure(curves, record.contents["bias"], pictures, config.updates))
        figures.print_table(
            [{k: v for k, v in r.items() if k != "curve"} for r in record.rows("bars")]
        )
        figures.print_table(record.rows("digits"))


def as_bits(key: jax.Array, images: np.ndarray) -> jax.Array:
    """Return images [n, pixels] of 0 and 1, drawn with the grey value as probability."""
    return rbm.sample(key, jnp.asarray(images.reshape(len(images), -1) / np.float32(255)))


def on_bars(rule, falls: bool, config: Config) -> dict[str, Any]:
    """Learn bars and stripes by a rule; return the likelihood as it goes, the mean of machines.

    A rate that falls does so evenly, from 0.1 to 0.
    """
    patterns = jnp.asarray(likelihood.bars_and_stripes(SIZE))
    data, every = jnp.tile(patterns, (5, 1)), max(1, config.updates // CURVE)

    @jax.jit
    @jax.vmap
    def learn(key):
        params = rbm.start(key, SIZE * SIZE, 16)

        def update(carry, number):
            params, chains = carry
            gradient, chains = rule(jax.random.fold_in(key, number), params, data, chains)
            rate = 0.1 * (1 - number / config.updates) if falls else 0.1
            return (jax.tree.map(lambda p, g: p + rate * g, params, gradient), chains), None

        def point(carry, first):
            value = likelihood.log_likelihood(carry[0], patterns).mean()
            return lax.scan(update, carry, first + jnp.arange(every))[0], value

        chains = jnp.full((len(data), 16), 0.5)
        first = every * jnp.arange(config.updates // every)
        (params, _), curve = lax.scan(point, (params, chains), first)
        last = likelihood.log_likelihood(params, patterns).mean()
        return jnp.append(curve, last)

    found = learn(jax.random.split(jax.random.key(config.seed), config.machines))
    return {
        "log-likelihood": float(found[:, -1].mean()),
        "least": float(found[:, -1].min()),
        "highest, of the mean": float(found.mean(0).max()),
        "curve": found.mean(0).tolist(),
    }


def bias_by_steps(config: Config) -> list[dict[str, float]]:
    """Return the error of the mean gradient of CD-k by k, for a machine that is half trained."""
    patterns = jnp.asarray(likelihood.bars_and_stripes(SIZE))
    params = rbm.start(jax.random.key(config.seed), SIZE * SIZE, 8)
    ascend = jax.jit(
        lambda p: jax.tree.map(
            lambda a, g: a + 0.1 * g, p, likelihood.expected_gradient(p, patterns)
        )
    )
    found = []
    for updates in (500, 1000, 2000):
        for _ in range(updates - (found[-1]["updates"] if found else 0)):
            params = ascend(params)
        exact = likelihood.expected_gradient(params, patterns).weights
        for k in (1, 2, 5, 10, 20, 50):
            biased = likelihood.expected_gradient(params, patterns, k).weights
            away = float(jnp.linalg.norm(biased - exact) / jnp.linalg.norm(exact))
            found.append({"updates": updates, "k": k, "relative error": away})
    return found


def measured(params: rbm.RBM, train, test, config: Config) -> dict[str, float]:
    """Return estimates of what the machine knows of MNIST, in nats."""
    shares = jnp.clip(train.mean(0), 0.01, 0.99)
    base = jnp.log(shares / (1 - shares))
    anneal = jax.jit(functools.partial(likelihood.annealed_log_partition, steps=1000))
    begun = time.process_time()
    log_z, deviation = anneal(jax.random.key(config.seed), params, base)
    values = {
        f"{name} log-likelihood / nats": float(
            likelihood.log_likelihood(params, part[:10_000], log_z).mean()
        )
        for name, part in (("train", train), ("test", test))
    }
    rebuilt = rbm.visible_probabilities(params, rbm.hidden_probabilities(params, test))
    return values | {
        "log Z": float(log_z),
        "deviation of Z / %": 100 * float(deviation),
        "squared error of a test image": float(jnp.mean(jnp.sum(jnp.square(test - rebuilt), 1))),
        "seconds of annealing": round(time.process_time() - begun, 1),
    }


def continued(params: rbm.RBM, images: jax.Array, seed: int) -> np.ndarray:
    """Return probabilities of pixels after 1,000 steps of Gibbs sampling from some images."""
    hidden = rbm.hidden_probabilities(params, images)
    _, hidden = jax.jit(rbm.gibbs)(jax.random.key(seed), params, hidden, 1000)
    return np.asarray(rbm.visible_probabilities(params, hidden))


@matplotlib.rc_context(STYLE)
def figure(curves, bias, pictures, updates: int) -> Figure:
    """Draw likelihoods on bars and stripes, the bias of CD-k, filters and samples."""
    drawn = Figure(figsize=(12, 6))
    parts: Any = drawn.subfigures(2, 1, height_ratios=[1, 1.1])
    left, right = parts[0].subplots(1, 2)
    for colour, (name, curve) in zip(COLOURS, curves.items(), strict=False):
        left.plot(np.linspace(0, updates, len(curve)), curve, color=colour, label=name)
    best = -math.log(2 ** (SIZE + 1) - 2)
    left.axhline(best, color="#717581", linestyle=(0, (4, 2)), linewidth=1)
    left.set(title="Bars and stripes", xlabel="updates", ylabel="mean log-likelihood / nats")
    left.legend()
    for colour, count in zip(COLOURS, dict.fromkeys(row["updates"] for row in bias), strict=False):
        rows = [row for row in bias if row["updates"] == count]
        k, errors = [row["k"] for row in rows], [row["relative error"] for row in rows]
        right.plot(k, errors, "o-", ms=3, color=colour, label=f"after {count:,} updates")
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_ylim(1e-5, None)
    right.set(title="Bias of CD-k", xlabel="k", ylabel="error of the gradient, relative")
    right.legend()
    places = parts[1].subplots(2, len(pictures), squeeze=False)
    for column, (name, (params, samples)) in enumerate(pictures.items()):
        filters(places[0, column], f"{name}: filters", params.weights, 36, 12)
        tiles(places[1, column], f"{name}: samples", samples, 12)
    return drawn


if __name__ == "__main__":
    run(main, Config)
