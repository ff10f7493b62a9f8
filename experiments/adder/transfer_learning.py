"""How much is a network that has seen CIFAR-10 worth where labels are few?

ResNet-20 as CNN and AdderNet, trained on CIFAR-10 by `adder_cifar10.py`, learns Fashion-MNIST (as
32×32 RGB) from 10, 100 and 1,000 labels a class in three ways: from scratch, fine-tuned in full
from the CIFAR-10 weights, and with all of those weights frozen below a new classifier. Every way
takes the same steps of the same recipe on the same labels. The learning rate is the one of
training from scratch: on 2,000 training images held out, fine-tuning at 0.1 did better than at 0.03
and 0.01, with 10 labels a class and with 100.

Ours, means over seeds 0 and 1 (at 1,000 labels seed 0), of all 10,000 test images, from CIFAR-10
networks of 12 epochs (87.34 and 84.12 % there), 312 steps of 64 images each; 25 minutes of training
beside other programs on two cores of an AMD EPYC (`results/transfer_learning.json`):

=================  =============  ===========  ==============
test accuracy / %  10 a class     100 a class  1,000 a class
=================  =============  ===========  ==============
CNN, scratch       71.84          81.19        83.15
CNN, fine-tuned    74.44          86.13        88.65
CNN, frozen        62.66          72.72        72.78
AdderNet, scratch  71.16          78.35        79.52
…, fine-tuned      75.37          85.57        87.66
…, frozen          61.32          71.95        72.59
=================  =============  ===========  ==============

Fine-tuning gains 2.6, 4.9 and 5.5 points for the CNN and 4.2, 7.2 and 8.1 for the AdderNet, which
brings it within a point of the CNN. Frozen features of animals and vehicles are not enough for
clothes, at any number of labels. So few steps do not train a network to its end from scratch: the
gain is one of time as well as of labels.

    python experiments/adder/adder_cifar10.py --data-dir DIR --epochs 12 --batch-size 128
    python experiments/adder/transfer_learning.py --data-dir DIR --pretrained runs/adder_cifar10
"""

import dataclasses
import itertools
import re
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from nnlab import (
    figures,
    runs,
    training,
    vision,
)
from nnlab.arithmetics import ADDER, FLOAT
from nnlab.errors import InputError
from nnlab.figures.plots import COLOURS
from nnlab.models import resnet20
from nnlab.optim import adder_recipe, freeze
from nnlab.runs.checkpoints import Checkpoints
from nnlab.runs.script import (
    check_choices,
    check_positive,
    check_positive_integer,
    check_seed,
    run,
)

Name = Literal["CNN", "AdderNet"]
ARITHMETICS = {"CNN": FLOAT, "AdderNet": ADDER}
WAYS = ("scratch", "fine-tuned", "frozen")
CLASSIFIER = re.compile(r"(Dense_0|BatchNorm_1)/").match


@dataclasses.dataclass(frozen=True)
class Config:
    pretrained: str = "runs/adder_cifar10"
    """Run folder of adder_cifar10.py whose networks serve."""
    networks: tuple[Name, ...] = ("CNN", "AdderNet")
    ways: tuple[str, ...] = WAYS
    """Of scratch, fine-tuned and frozen."""
    dataset: str = "fashion_mnist"
    """fashion_mnist, mnist or digits."""
    data_dir: str | None = None
    """Folder with the data set's files; otherwise looked for and downloaded."""
    labels: tuple[int, ...] = (10, 100, 1000)
    """Labelled images of each class."""
    seeds: tuple[int, ...] = (0, 1)
    """Of the choice of images, the new layers and the order; the most labels take the first."""
    epochs: int = 2
    """Over as many images as the most labels make; fewer images come more often."""
    batch_size: int = 64
    learning_rate: float = 0.1
    """Of SGD at the start of its cosine, in every way."""
    out: str = "runs/transfer_learning"
    """Folder of the run."""
    overwrite: bool = False
    """Replace an earlier run in that folder."""
    resume: bool = False
    """Go on with the run in that folder, or start it."""

    def __post_init__(self):
        check_choices("networks", self.networks, ARITHMETICS)
        check_choices("ways", self.ways, WAYS)
        for labels in self.labels or (0,):
            check_positive_integer("labels", labels)
        for seed in self.seeds or (-1,):
            check_seed("seeds", seed)
        check_positive_integer("epochs", self.epochs)
        check_positive_integer("batch_size", self.batch_size)
        check_positive("learning_rate", self.learning_rate)


def pretrained(name: str, config: Config) -> dict[str, Any]:
    """The variables of a network of adder_cifar10.py."""
    checkpoints = Checkpoints(Path(config.pretrained) / "checkpoints" / name)
    if checkpoints.steps():
        model, image = resnet20(10, ARITHMETICS[name]), jnp.ones((1, 32, 32, 3))
        like = training.init(jax.random.key(0), model, adder_recipe(1), image)
        if found := checkpoints.newest(like):
            return {"params": found[0].params, "batch_stats": found[0].batch_stats}
    raise InputError(
        f"--pretrained must be a run of adder_cifar10.py that has the {name}, not "
        f"{config.pretrained}."
    )


def splits(config: Config) -> tuple[training.Batch, training.Batch]:
    """Training and test images, 32×32 with the black around them, and their labels."""
    dataset = vision.load(config.dataset, config.data_dir)
    train, test = (
        split._replace(images=np.asarray(vision.pad_to(split.images, 32, 32)))
        for split in (dataset.train, dataset.test)
    )
    return vision.standardized(dataset._replace(train=train, test=test))


def rgb(images: jax.Array) -> jax.Array:
    return jnp.repeat(images, 3, axis=-1)


def chosen(labels: jax.Array, count: int, images: int, seed: int) -> np.ndarray:
    """Indices of `count` images of each class, repeated until they are `images`."""
    order = np.random.default_rng(seed).permutation(len(labels))
    drawn = np.asarray(labels)[order]
    some = [order[drawn == label][:count] for label in np.unique(drawn)]
    if min(map(len, some)) < count:
        raise InputError(
            f"--labels must be at most the {min(map(len, some))} images of a class, not {count}."
        )
    return np.resize(np.concatenate(some), images)


def main(config: Config) -> None:
    train, (test_images, test_labels) = splits(config)
    test = rgb(test_images), test_labels
    classes = int(train[1].max()) + 1
    images = classes * max(config.labels)
    numbers = jnp.arange(images), jnp.arange(images)
    steps = config.epochs * training.steps_per_epoch(numbers, config.batch_size)
    trained = {name: pretrained(name, config) for name in config.networks}
    folder = runs.RunFolder.create(config.out, config, config.overwrite, config.resume)
    # Each network's program of a way serves all its numbers of labels and all seeds.
    jax.config.update("jax_compilation_cache_dir", str(folder.path / "compiled"))
    rows = []
    for count, seed in itertools.product(config.labels, config.seeds):
        if count == max(config.labels) and seed != config.seeds[0]:
            continue
        picked = chosen(train[1], count, images, seed)
        feed = training.in_memory((rgb(train[0][picked]), train[1][picked]), config.batch_size)
        for name, way in itertools.product(config.networks, config.ways):
            model = resnet20(classes, ARITHMETICS[name])
            optimizer = adder_recipe(steps, config.learning_rate)
            if way == "frozen":
                optimizer = freeze(optimizer, lambda path: not CLASSIFIER(path))
            state = training.init(jax.random.key(seed), model, optimizer, test[0])
            if way != "scratch":
                state = training.transfer(trained[name], state, optimizer, replace=CLASSIFIER)
            _, history = runs.fit(
                f"{name}_{way}_{count}_{seed}",
                state,
                training.train_step(model, optimizer, augment=vision.random_crop_and_flip),
                training.evaluation(model),
                feed,
                test,
                epochs=config.epochs,
                folder=folder,
                keep=1,
            )
            rows.append(
                {"network": name, "way": way, "labels a class": count, "seed": seed}
                | {"test accuracy / %": round(100 * history["test_accuracy"][-1], 2)}
                | {"seconds": round(sum(history["seconds"]), 1), "history": history}
            )
            print(*list(rows[-1].values())[:-1], flush=True)
            result = {"config": dataclasses.asdict(config), "steps": steps, "rows": rows}
            folder.write_result(runs.provenance() | result | {"table": table(rows)})
    figures.print_table(table(rows))
    figure(rows).savefig(folder.curves, dpi=120)


def table(rows) -> list[dict[str, Any]]:
    """Means over the seeds, and how far the seeds lie apart."""
    cells: dict[tuple, list] = {}
    for row in rows:
        key = row["labels a class"], row["network"], row["way"]
        cells.setdefault(key, []).append(row["test accuracy / %"])
    return [
        {"labels a class": count, "network": name, "way": way, "seeds": len(of)}
        | {"test accuracy / %": round(float(np.mean(of)), 2)}
        | {"least": min(of), "greatest": max(of)}
        for (count, name, way), of in cells.items()
    ]


def figure(rows) -> Figure:
    """Test accuracy by labels a class: the mean over the seeds, with the least and the greatest."""
    drawing = Figure(figsize=(6, 4), layout="constrained")
    axes = drawing.subplots()
    names = dict.fromkeys(row["network"] for row in rows)
    for name, style in zip(names, ("o-", "s--"), strict=False):
        for way, colour in zip(WAYS, COLOURS, strict=False):
            some = [r for r in table(rows) if (r["network"], r["way"]) == (name, way)]
            if some:
                x, mean, least, greatest = (
                    np.array([row[key] for row in some])
                    for key in ("labels a class", "test accuracy / %", "least", "greatest")
                )
                spread = [mean - least, greatest - mean]
                axes.errorbar(
                    x, mean, spread, fmt=style, color=colour, capsize=3, label=f"{name}, {way}"
                )
    axes.set_xscale("log")
    axes.set_xlabel("labels a class")
    axes.set_ylabel("test accuracy / %")
    axes.legend(frameon=False)
    return drawing


if __name__ == "__main__":
    run(main, Config)
