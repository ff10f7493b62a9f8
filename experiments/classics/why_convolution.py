"""Why convolution?

Answer: With as many units, 6,018 parameters do what 1,203,466 do, and generalise better: on MNIST a
convolution has 96.6 % of the test images right, a locally connected network 95.6 and a dense one
95.4 %; on shifted MNIST it has 87.9 %, the others 79.2 and 83.9 %, and half their gap to the
training images. Adders go the same way (96.8, 97.0 and 95.3 %; 87.0, 83.7 and 82.0 %), and do
better than products where a layer is locally connected. But a convolution alone does not see a
shifted digit as the same: at 4 pixels 38 % of them are right. The maximum over places makes that
70 % (adder 84 %), and costs accuracy where nothing is shifted.

Known: of five networks for 480 digits two dense layers had 87.0 % of the test digits right, locally
connected ones 88.5 %, and those with shared weights 94.0 and 98.4 % (LeCun, Generalization and
network design strategies, 1989; table 11.1 of Hastie, Tibshirani & Friedman, The Elements of
Statistical Learning, 2nd edition, 2009).

Two hidden layers of 1,152 and 256 units in each network, of products or of distances, and a float
classifier: windows of 5x5 two pixels apart, with weights of their own (`nnlab.classics.local`) or
shared, or no windows at all. In the last network the classifier sees only the greatest of each
feature's 16 places. Trained on 5,000 images, as they are or each shifted once by up to 6 pixels
along both axes; tested on 10,000, shifted in the same way, and by the pixels of the second table to
the right, down, to the left or up (every fourth image; beyond 4 pixels digits lose their edge). SGD
with momentum 0.9, weight decay 5e-4 and a cosine from 0.1 for all, 10 epochs.

The locally connected network, with 14 times the weights of the convolution, learns its shifted
training images by heart (99.8 %), but each of its places has seen few digits, it seems too few.
Below a maximum the float network depends on its seed (75.3 to 87.5 % on shifted MNIST), the adder's
hardly (84.9 to 87.8 %).

Ours, means of seeds 0 to 2, 9 minutes of processor time on two cores of an AMD EPYC that other
programs used too (`results/why_convolution.json` and `.png`).

    python experiments/classics/why_convolution.py
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import matplotlib
import numpy as np
from jax import lax
from matplotlib.figure import Figure

from nnlab import figures, runs, training, vision
from nnlab.arithmetics import ADDER, FLOAT, Arithmetic
from nnlab.classics.local import LocalConv
from nnlab.figures.plots import COLOURS, STYLE
from nnlab.layers.normalization import batch_norm
from nnlab.networks import Network
from nnlab.optim import adder_recipe
from nnlab.runs.fields import DataDir, Positive, PositiveInt, Seed, Some
from nnlab.runs.script import run

Kind = Literal["dense", "local", "shared", "pooled"]
NAMES: dict[Kind, str] = {
    "dense": "dense",
    "local": "locally connected",
    "shared": "convolution",
    "pooled": "convolution, maximum",
}
ARITHMETICS = {"float": FLOAT, "adder": ADDER}
SHIFTS = range(7)
EVERY = 4  # every fourth of the test images is shifted
DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0))


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/why_convolution"
    data_dir: DataDir = None
    train_images: vision.TrainImages = 5000
    epochs: PositiveInt = 10
    batch_size: PositiveInt = 100
    learning_rate: Positive = 0.1
    """Peak learning rate of SGD (cosine decay)."""
    seeds: Some[Seed] = (0, 1, 2)


class Windows(Network):
    """Map images [batch, 28, 28, 1] to logits by two layers of equal units, and a dense one.

    Windows of 5x5 two pixels apart, 12x12 of 8 units and then 4x4 of 16; a dense network has as
    many units in each layer, but none has a place. Normalised are units of equal weights: the
    features of a convolution, and each unit of the others. The last layer sees every unit or, if
    the kind is "pooled", the maximum of each feature over its places.
    """

    kind: Kind = "shared"
    arithmetic: Arithmetic = FLOAT
    classes: int = 10

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        shared = self.kind in ("shared", "pooled")
        window: Any = {"strides": 2, "padding": "VALID"}
        for features, side in ((8, 12), (16, 4)):
            if shared:
                x = self.arithmetic.conv(features, (5, 5), **window)(x)
            elif self.kind == "local":
                x = LocalConv(features, 5, arithmetic=self.arithmetic, **window)(x)
            else:
                x = self.arithmetic.dense(features * side**2)(lax.collapse(x, 1))
            shape = (len(x), side, side, features)
            x = x if shared else lax.collapse(x, 1)
            x = self.arithmetic.activation(batch_norm(train)(x)).reshape(shape)
        x = x.max((1, 2)) if self.kind == "pooled" else lax.collapse(x, 1)
        return nn.Dense(self.classes)(x)


def main(config: Config) -> None:
    mnist = vision.load("mnist", config.data_dir)
    centred = vision.prepared(mnist, train_images=config.train_images)
    prepare = centred.preparation
    moved = tuple(
        (prepare(shifted_at_random(prepare.pixels(x), seed)), y)
        for seed, (x, y) in enumerate((centred.train, centred.test))
    )
    sets = {"MNIST": (centred.train, centred.test), "shifted MNIST": moved}
    some, labels = prepare.pixels(centred.test[0][::EVERY]), centred.test[1][::EVERY]
    by_shift = [(prepare(shifted(some, shift)), labels) for shift in SHIFTS]
    with config.open(reasons=runs.COSINE) as record:
        for kind, name in itertools.product(NAMES, ARITHMETICS):
            for row in trained(kind, ARITHMETICS[name], sets, by_shift, config):
                record.row({"network": NAMES[kind], "arithmetic": name} | row, "runs")
        for row in means(record.rows("runs")):
            record.row({k: v for k, v in row.items() if k != "by shift"})
            curve = {
                str(shift): value for shift, value in zip(SHIFTS, row["by shift"], strict=True)
            }
            keep = ("trained on", "network", "arithmetic")
            record.row({k: row[k] for k in keep} | curve, "accuracy by shift")
        record.result({"minutes": record.minutes})
        record.figure(figure(record.rows("accuracy by shift")))
        for table in ("table", "accuracy by shift"):
            figures.print_table(record.rows(table))


def shifted(images: np.ndarray, pixels: int) -> np.ndarray:
    """Return images [n, height, width, 1] shifted to the right, down, to the left, up in turn."""
    ways = pixels * np.array(DIRECTIONS)[np.arange(len(images)) % len(DIRECTIONS)]
    return cut(images, ways, pixels)


def shifted_at_random(images: np.ndarray, seed: int) -> np.ndarray:
    """Return images, each shifted by up to 6 pixels along both axes."""
    reach = max(SHIFTS)
    ways = np.random.default_rng(seed).integers(-reach, reach + 1, (len(images), 2))
    return cut(images, ways, reach)


def cut(images: np.ndarray, ways: np.ndarray, border: int) -> np.ndarray:
    """Return images moved by `ways` [n, 2], rows and columns, of at most `border`; new is black."""
    padded = np.pad(images, ((0, 0), (border, border), (border, border), (0, 0)))
    height, width = images.shape[1:3]
    starts = border - ways
    return np.stack(
        [
            image[row : row + height, column : column + width]
            for image, (row, column) in zip(padded, starts, strict=True)
        ]
    )


def trained(kind: Kind, arithmetic: Arithmetic, sets: Mapping, by_shift: Sequence, config: Config):
    """Yield what networks of a kind learn of each set from each seed."""
    model = Windows(kind, arithmetic)
    (x, y), _ = sets["MNIST"]
    steps = config.epochs * training.steps_per_epoch((x, y), config.batch_size)
    optimizer = adder_recipe(steps, config.learning_rate)
    epoch = training.train_epoch(training.train_step(model, optimizer), config.batch_size)
    evaluate = training.evaluation(model)
    for (name, (train, test)), seed in itertools.product(sets.items(), config.seeds):
        state = training.init(jax.random.key(seed), model, optimizer, x)
        for _ in range(config.epochs):
            state, _ = epoch(state, train)

        def accuracy(data, state=state):
            return 100 * float(evaluate(state, data)["accuracy"])

        yield {
            "trained on": name,
            "seed": seed,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
            "training / %": accuracy(train),
            "test / %": accuracy(test),
            "by shift": [accuracy(data) for data in by_shift],
        }


def means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for the seeds of each network and set: means, and the least and most."""
    found: dict[tuple, list] = {}
    for row in rows:
        key = tuple(row[k] for k in ("trained on", "network", "arithmetic", "parameters"))
        found.setdefault(key, []).append(row)
    table = []
    for (name, network, arithmetic, parameters), some in sorted(
        found.items(), key=lambda f: f[0][0]
    ):
        tests = [row["test / %"] for row in some]
        train = float(np.mean([row["training / %"] for row in some]))
        table.append(
            {
                **{"trained on": name, "network": network, "arithmetic": arithmetic},
                **{"parameters": parameters, "training / %": train},
                "test / %": float(np.mean(tests)),
                "test of all seeds / %": f"{min(tests):.2f} to {max(tests):.2f}",
                "gap / %": train - float(np.mean(tests)),
                "by shift": np.mean([row["by shift"] for row in some], axis=0).tolist(),
            }
        )
    return table


@matplotlib.rc_context(STYLE)
def figure(curves: Sequence[Mapping]) -> Figure:
    """Draw accuracy by the shift of the test images, a panel for each set trained on."""
    drawn = Figure(figsize=(10, 3.6))
    sets = list(dict.fromkeys(row["trained on"] for row in curves))
    for axes, name in zip(drawn.subplots(1, len(sets), sharey=True), sets, strict=True):
        for row in curves:
            if row["trained on"] == name:
                colour = COLOURS[list(NAMES.values()).index(row["network"])]
                style = "-" if row["arithmetic"] == "float" else "--"
                label = f"{row['network']}, {row['arithmetic']}"
                accuracies = [row[str(shift)] for shift in SHIFTS]
                axes.plot(SHIFTS, accuracies, style, color=colour, label=label)
        axes.set(title=f"trained on {name}", xlabel="shift of the test images / pixels", ylim=0)
    drawn.axes[0].set_ylabel("test accuracy / %")
    drawn.legend(*drawn.axes[0].get_legend_handles_labels(), loc="outside right center")
    return drawn


if __name__ == "__main__":
    run(main, Config)
