"""With as many parameters, is a deep narrow network better than a wide shallow one?

Answer: Neither. In 3 epochs, 8 layers do best or nearly so on Fashion-MNIST and CIFAR-10. Networks
of 26 layers fail to learn, adders more than products, and shortcuts give most of the loss back.

Networks of 3×3 convolutions with BatchNorm in three stages (`nnlab.models.PlainNet`), of 5 to 26
layers, whose widths are chosen so that each has the same number of parameters to within a percent,
as CNN and as AdderNet; the deepest also with a shortcut around every convolution. SGD with momentum
0.9, weight decay 5e-4 and a cosine from 0.1 for all, nothing tuned for one.

What is known of CNNs: depth helps until plain networks become hard to train, so that on CIFAR-10
one of 56 layers has more errors than one of 20, in training too, and shortcuts cure that (He et
al., Deep Residual Learning, CVPR 2016, https://arxiv.org/abs/1512.03385, figures 1 and 6).
No figures are published for adder networks of equal size and different depth.

Ours, 40,000 parameters, 3 epochs, seed 0; 78 minutes of training beside other programs on two cores
of an AMD EPYC (`results/deep_vs_shallow.json` and `.png`, table in README.md).

Neither the widest nor the deepest is best: 8 layers, or 14 on Fashion-MNIST as CNN. Beyond that
training accuracy falls with test accuracy, so it is learning that fails and not generalisation, and
adders, whose best depth is never greater, lose more by it. Shortcuts cost no parameter and give
back two thirds of the loss (CNN) and nearly all of it (AdderNet) on Fashion-MNIST, and 55 and 72 %
on CIFAR-10; still, in 3 epochs no network of 26 layers is better than one of 8.

    python experiments/adder/deep_vs_shallow.py --data-dir DIR
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import numpy as np

from nnlab import costs, figures, runs, training, vision
from nnlab.arithmetics import ADDER, FLOAT
from nnlab.figures.panels import Line, Panel, figure_panels
from nnlab.models import PlainNet
from nnlab.optim import adder_recipe
from nnlab.runs.fields import DataDir, Positive, PositiveInt, Seed, Some, SomeOf
from nnlab.runs.script import run

ARITHMETICS = {"CNN": FLOAT, "AdderNet": ADDER}
ACCURACY = "test accuracy / %"
DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10")


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/deep_vs_shallow"
    datasets: Annotated[tuple[str, ...], SomeOf(DATASETS)] = ("fashion_mnist", "cifar10")
    """Some of digits, mnist, fashion_mnist, cifar10."""
    data_dir: DataDir = None
    train_images: vision.TrainImages = None
    networks: Annotated[tuple[str, ...], SomeOf(ARITHMETICS)] = ("CNN", "AdderNet")
    layers: Some[PositiveInt] = (1, 2, 4, 8)
    """Convolutions a stage; a network has three times as many layers, and two more."""
    parameters: PositiveInt = 40_000
    """Parameters of every network, to within a percent."""
    epochs: PositiveInt = 3
    batch_size: PositiveInt = 128
    learning_rate: Positive = 0.1
    """Peak learning rate of SGD (cosine decay)."""
    seed: Seed = 0


def main(config: Config) -> None:
    with config.open(reasons=runs.COSINE) as record:
        for name in config.datasets:
            dataset = vision.load(name, config.data_dir)
            images = vision.prepared(dataset, train_images=config.train_images)
            train, test = images.train, images.test
            folder = dataclasses.replace(record.folder, notes=images.notes)
            kinds = [(layers, False) for layers in config.layers] + [(max(config.layers), True)]
            for network, (layers, shortcuts) in itertools.product(config.networks, kinds):
                widths = widths_of(config.parameters, layers, train[0].shape[-1], dataset.classes)
                arithmetic = ARITHMETICS[network]
                model = PlainNet(layers, widths, dataset.classes, arithmetic, shortcuts=shortcuts)
                row = {"data": name, "network": network, "layers": 3 * layers + 2}
                row |= {"shortcuts": "yes" if shortcuts else "no"}
                row |= {"widths": "-".join(map(str, widths))}
                record.row(row | trained(row, model, train, test, config, folder))
        record.figure(figure(record.rows()))
        figures.print_table(record.rows())


def size(layers: int, widths: Sequence[int], channels: int, classes: int) -> int:
    """Count the parameters of a `PlainNet`: kernels, BatchNorms' scales and biases, classifier."""
    a, b, c = widths
    kernels = 9 * (channels * a + a * b + b * c + layers * a * a + (layers - 1) * (b * b + c * c))
    return kernels + 2 * a + 2 * layers * (a + b + c) + (c + 1) * classes


def widths_of(parameters: int, layers: int, channels: int, classes: int) -> tuple[int, int, int]:
    """Find the widths near (w, 2 w, 4 w) whose network has most nearly that many parameters."""

    def distance(widths: tuple[int, int, int]) -> float:
        return abs(size(layers, widths, channels, classes) - parameters)

    w = min(range(1, 1000), key=lambda w: distance((w, 2 * w, 4 * w)))
    a, b, c = (range(max(1, n * w - 2), n * w + 3) for n in (1, 2, 4))
    return min(((i, j, k) for i in a for j in b for k in c), key=distance)


def trained(
    row: dict[str, Any], model: PlainNet, train, test, config: Config, folder: runs.RunFolder
) -> dict[str, Any]:
    """Train the network of a row, and return what its training measured and its costs."""
    steps = config.epochs * training.steps_per_epoch(train, config.batch_size)
    optimizer = adder_recipe(steps, config.learning_rate)
    flips = vision.random_crop_and_flip if row["data"] == "cifar10" else None
    fitted = runs.fit(
        "_".join(str(row[key]) for key in ("data", "network", "layers", "shortcuts")),
        training.init(jax.random.key(config.seed), model, optimizer, train[0]),
        training.train_step(model, optimizer, augment=flips),
        training.evaluation(model),
        training.in_memory(train, config.batch_size),
        test,
        epochs=config.epochs,
        folder=folder,
        statistics=None,  # the committed results are by running averages
    )
    state, history = fitted.last, fitted.history
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    counts = costs.inference_costs(model.apply, variables, test[0][:1])
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "train accuracy / %": round(100 * history["train_accuracy"][-1], 2),
        ACCURACY: round(100 * history["test_accuracy"][-1], 2),
        "multiplications": counts["multiplications"],
        "additions": counts["additions"],
        "seconds / epoch": float(np.median(history["seconds"])),
    }


def figure(rows: Sequence[dict[str, Any]]):
    """Draw accuracy by depth, a panel a data set; dashed, the deepest network with shortcuts."""
    panels = []
    for name in dict.fromkeys(row["data"] for row in rows):
        lines = []
        for colour, network in enumerate(dict.fromkeys(row["network"] for row in rows)):
            some = [r for r in rows if (r["data"], r["network"]) == (name, network)]
            plain = [r for r in some if r["shortcuts"] == "no"]
            depths, accuracies = ([r[key] for r in plain] for key in ("layers", ACCURACY))
            lines.append(Line(network, depths, accuracies, colour))
            level, deepest = some[-1][ACCURACY], some[-1]["layers"]
            around = [deepest - 2, deepest + 2]
            lines.append(Line(f"{network}, shortcuts", around, [level, level], colour, True))
        panels.append(Panel(name, "layers", ACCURACY, lines))
    return figure_panels(panels)


if __name__ == "__main__":
    run(main, Config)
