"""Does pre-training without labels help a network of sigmoid units, where, and by how much?

Answer: It does, and most in a deep network with few labels. Of the test images five layers have
17.7 % wrong after contrastive divergence, 18.9 % after denoising and 23.8 % from a random start
with 100 labels, 6.9, 8.2 and 10.0 % with 1,000, and 1.76, 1.86 and 2.39 % with all 60,000. One
layer gains less, 1.8, 1.4 and 0.2 points, and without pre-training five layers are hardly better
than one.

Known: with all labels of MNIST a deep belief network of three layers has 1.34 % of the test images
wrong, a stacked denoising auto-encoder 1.30 %, and one layer from a random start 1.65 % (the
tutorials of the LISA lab, 500 to 1,000 units a layer).

Networks of one and of five layers of sigmoid units start at random, as a deep belief network
(contrastive divergence, CD-1) or as a stacked denoising auto-encoder (a quarter of the inputs set
to 0), both trained layer by layer on all 60,000 images without their labels. Then Adam trains all
layers alike by 100, 1,000 or all labels, as many of each class, drawn by the seed. So that the
random start is a fair one, its weights are Xavier's, four times as wide for sigmoids (Glorot &
Bengio, 2010; the LISA lab), and each kind of start has the learning rate, of seven, with the fewest
errors on 10,000 images held out of training, with seed 0. With 60,000 labels the rates are compared
after one epoch on the other 50,000. Rates fall to 0 as a cosine, and the test images choose
nothing.

Every start takes a rate from within the seven, but five layers from a random start with 100 labels,
which take the least, for 0.4 points on the images held out and none on the test images.

Ours, seeds 0 to 2, 9.1 minutes on two cores of an AMD EPYC that other programs used too
(`results/pretraining.json` and `.png`).

    python experiments/classics/pretraining.py

It stops and goes on with `--resume`, also to more `--labels`.
"""

import dataclasses
import functools
import itertools
import time
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from jax import lax
from matplotlib.figure import Figure
from stages import Stages, check_fills

from nnlab import figures, runs, vision
from nnlab.classics import layerwise, rbm
from nnlab.classics.denoising import Denoising
from nnlab.classics.mlp import MLP
from nnlab.classics.rbm import CD
from nnlab.data.holding_out import drawn
from nnlab.errors import InputError
from nnlab.figures.plots import COLOURS, STYLE
from nnlab.runs.fields import DataDir, PositiveInt, Seed, Share, Some
from nnlab.runs.script import run

CLASSES, HELD_OUT, RATE_EPOCHS = 10, 1 / 6, 1
RULES = {  # of the layers, with the learning rates that suit them
    "deep belief network": (CD(1), 0.1),
    "denoising auto-encoder": (Denoising(0.25), 0.02),
}
STARTS = ("random", *RULES)
XAVIER = nn.initializers.variance_scaling(16, "fan_avg", "uniform")  # 4² for the slope of 1/4


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/pretraining"
    data_dir: DataDir = None
    train_images: vision.TrainImages = None
    width: PositiveInt = 200
    """Units of each layer."""
    depths: Some[PositiveInt] = (1, 5)
    labels: Some[PositiveInt] = (100, 1000, 60_000)
    """Labelled images to train by; the last number may be that of all images."""
    layer_epochs: PositiveInt = 5
    """Passes through the images for each layer that is pre-trained."""
    steps: PositiveInt = 1000
    """Steps where not all images are labelled, on batches of 50."""
    epochs: PositiveInt = 5
    """Passes where all are, in batches of 100."""
    rates: Some[Share] = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
    """Learning rates to choose from."""
    seeds: Some[Seed] = (0, 1, 2)


def main(config: Config) -> None:
    mnist = vision.load("mnist", config.data_dir)
    images, labels = prepared(mnist.train)
    images, labels = images[: config.train_images], labels[: config.train_images]
    if max(config.labels) > len(images):
        raise InputError(f"--labels must be at most the {len(images)} images, not {config.labels}.")
    check_fills(images)
    task = Task(images, labels, prepared(mnist.test), config)
    with config.open("labels") as record:
        stages = Stages(record)
        for count, depth, start in itertools.product(config.labels, config.depths, STARTS):
            rate = choose_rate(task, count, depth, start, stages)
            for seed in config.seeds:
                case = {"labels": count, "layers": depth, "start": start, "seed": seed}
                row = stages.row(case, "rows", lambda c=case, r=rate: tested(task, stages, r, **c))
                print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        record.result(
            {"minutes": round(stages.seconds / 60, 1), "table": table(record.rows("rows"))}
        )
        record.figure(figure(record.rows("rows")))
        figures.print_table(record.rows())


class Task:
    """Images and labels, and which of them are held out."""

    def __init__(self, images, labels, test, config: Config):
        self.images, self.labels, self.test, self.config = images, labels, test, config
        rest, held = drawn(len(images), labels, HELD_OUT)
        self.rest, self.held = rest, (images[held], labels[held])

    def some(self, count: int, seed: int) -> tuple[jax.Array, jax.Array]:
        """Return so many labelled images, none held out; of each class as many, if it has them."""
        order = np.random.default_rng(seed).permutation(self.rest)
        by_class = [order[self.labels[order] == digit] for digit in range(CLASSES)]
        turns = np.concatenate([np.arange(len(places)) for places in by_class])
        places = np.concatenate(by_class)[np.argsort(turns, kind="stable")][:count]
        return self.images[places], self.labels[places]


def prepared(split: vision.Split) -> tuple[np.ndarray, np.ndarray]:
    """Return images [n, pixels] from 0 to 1, and labels [n]."""
    return split.images.reshape(len(split.images), -1) / np.float32(255), split.labels


def network(depth: int, width: int) -> MLP:
    options = {"norm": False, "activation": jax.nn.sigmoid, "kernel_init": XAVIER}
    return MLP(CLASSES, depth=depth, width=width, **options)


def started(task: Task, depth: int, start: str, seed: int, stages: Stages):
    """Return the network's parameters at its start."""
    config, key = task.config, jax.random.key(seed)
    params = initial(key, task.images[:1], depth=depth, width=config.width)
    if start == "random":
        return params
    rule, rate = RULES[start]
    options: dict[str, Any] = {"epochs": config.layer_epochs, "learning_rate": rate}
    layers: list[rbm.RBM] = []
    for number in range(depth):

        def learn(number=number, below=tuple(layers)) -> rbm.RBM:
            data = jnp.asarray(task.images)
            for layer in below:
                data = jax.jit(rbm.hidden_probabilities)(layer, data)
            layer_key = jax.random.fold_in(jax.random.fold_in(key, 1), number)
            return layerwise.train_layer(layer_key, data, config.width, rule, **options)

        name = f"{start}_{seed}_{number + 1}".replace(" ", "_")
        visible = config.width if number else task.images.shape[1]
        layers.append(stages.trained(name, rbm.start(key, visible, config.width), learn))
    return layerwise.unroll(layers, params)


@functools.partial(jax.jit, static_argnames=("depth", "width", "steps", "batch_size"))
def fine_tune(key, params, images, labels, rate, *, depth, width, steps, batch_size):
    """Return the parameters after so many steps of Adam on all of them."""
    model, adam = network(depth, width), optax.scale_by_adam()
    per_epoch = len(images) // batch_size

    def loss(params, places):
        logits = jnp.asarray(model.apply({"params": params}, images[places]))
        found = optax.softmax_cross_entropy_with_integer_labels(logits, labels[places])
        return jnp.mean(found)

    def epoch(carry, number):
        order = jax.random.permutation(jax.random.fold_in(key, number), len(images))

        def step(carry, item):
            params, moments = carry
            done, places = item
            updates, moments = adam.update(jax.grad(loss)(params, places), moments)
            now = rate * (1 + jnp.cos(jnp.pi * done / steps)) / 2
            params = jax.tree.map(lambda p, u: p - now * u, params, updates)
            return (params, moments), None

        batches = order[: per_epoch * batch_size].reshape(per_epoch, batch_size)
        return lax.scan(step, carry, (number * per_epoch + jnp.arange(per_epoch), batches))[0], None

    epochs = jnp.arange(steps // per_epoch)
    return lax.scan(epoch, (params, adam.init(params)), epochs)[0][0]


def train(task: Task, data, params, rate: float, depth: int, seed: int, epochs: int | None):
    """Return fine-tuned parameters; with `epochs` on that many passes, otherwise some steps."""
    batch_size = 100 if epochs else min(50, len(data[0]))
    per_epoch = len(data[0]) // batch_size
    steps = per_epoch * (epochs or max(1, task.config.steps // per_epoch))
    options = {"depth": depth, "width": task.config.width, "batch_size": batch_size}
    key = jax.random.fold_in(jax.random.key(seed), 2)
    data = map(jnp.asarray, data)
    return jax.block_until_ready(fine_tune(key, params, *data, rate, steps=steps, **options))


@functools.partial(jax.jit, static_argnames=("depth", "width"))
def initial(key, images, *, depth, width):
    return network(depth, width).init(key, images)["params"]


@functools.partial(jax.jit, static_argnames=("depth", "width"))
def predictions(params, images, *, depth, width):
    logits = jnp.asarray(network(depth, width).apply({"params": params}, images))
    return jnp.argmax(logits, axis=1)


def error(params, depth: int, width: int, images, labels) -> float:
    """Return the share of images that are read wrongly, in percent."""
    found = predictions(params, images, depth=depth, width=width)
    return 100 * float(np.mean(np.asarray(found) != labels))


def choose_rate(task: Task, count: int, depth: int, start: str, stages: Stages) -> float:
    """Return the learning rate with the fewest errors on the images held out."""
    config, seed = task.config, task.config.seeds[0]
    whole = count > len(task.rest)
    case = {"labels": count, "layers": depth, "start": start}

    def measure(rate: float) -> dict[str, Any]:
        params = started(task, depth, start, seed, stages)
        begun = time.process_time()
        data = (task.images[task.rest], task.labels[task.rest]) if whole else task.some(count, seed)
        epochs = RATE_EPOCHS if whole else None
        params = train(task, data, params, rate, depth, seed, epochs)
        wrong = error(params, depth, config.width, *task.held)
        stages.spent(f"rates, {count} labels", begun)
        return {"held-out error / %": wrong}

    rows = [
        stages.row(case | {"rate": rate}, "rates", functools.partial(measure, rate))
        for rate in config.rates
    ]
    return min(rows, key=lambda row: row["held-out error / %"])["rate"]


def tested(task: Task, stages: Stages, rate: float, labels: int, layers: int, start: str, seed):
    """Return the test error of a network that is fine-tuned at this rate."""
    config = task.config
    params = started(task, layers, start, seed, stages)
    begun = time.process_time()
    whole = labels > len(task.rest)
    data = (task.images, task.labels) if whole else task.some(labels, seed)
    params = train(task, data, params, rate, layers, seed, config.epochs if whole else None)
    seconds = round(time.process_time() - begun, 1)
    stages.spent(f"fine-tuning, {labels} labels", begun)
    wrong = error(params, layers, config.width, *task.test)
    return {"rate": rate, "test error / %": wrong, "seconds": seconds}


def table(rows) -> list[dict[str, Any]]:
    """Return means and deviations over the seeds, a column for each start."""
    found = []
    cases = dict.fromkeys((row["labels"], row["layers"]) for row in rows)
    for labels, layers in cases:
        line: dict[str, Any] = {"labels": f"{labels:,}", "layers": layers}
        for start in STARTS:
            errors = of(rows, labels, layers, start)
            line[f"{start} / %"] = f"{np.mean(errors):.2f} ± {deviation(errors):.2f}"
        found.append(line)
    return found


def of(rows, labels: int, layers: int, start: str) -> list[float]:
    wanted = {"labels": labels, "layers": layers, "start": start}
    return [row["test error / %"] for row in rows if wanted.items() <= row.items()]


def deviation(errors: list[float]) -> float:
    return float(np.std(errors, ddof=1)) if len(errors) > 1 else 0.0


@matplotlib.rc_context(STYLE)
def figure(rows) -> Figure:
    """Draw test errors by labels, a panel for each depth, each seed a point."""
    depths = list(dict.fromkeys(row["layers"] for row in rows))
    counts = list(dict.fromkeys(row["labels"] for row in rows))
    drawn = Figure(figsize=(4.2 * len(depths), 3.6))
    places = drawn.subplots(1, len(depths), squeeze=False, sharey=True)[0]
    for axes, depth in zip(places, depths, strict=True):
        for number, (start, colour) in enumerate(zip(STARTS, COLOURS, strict=False)):
            x = np.array(counts) * 1.06 ** (number - 1)  # side by side
            every = [of(rows, count, depth, start) for count in counts]
            axes.plot(x, [np.mean(errors) for errors in every], color=colour, label=start)
            for at, errors in zip(x, every, strict=True):
                axes.plot([at] * len(errors), errors, "o", color=colour, ms=3.5)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(counts, [f"{count:,}" for count in counts])
        axes.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
        axes.minorticks_off()
        axes.set(title=f"layers: {depth}", xlabel="labels")
    places[0].set_ylabel("test error / %")
    places[-1].legend()
    return drawn


if __name__ == "__main__":
    run(main, Config)
