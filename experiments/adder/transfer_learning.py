"""How much is a network that has seen CIFAR-10 worth where labels are few?

Answer: With 10, 100 and 1,000 labels a class of Fashion-MNIST, fine-tuning gains 2.6, 4.9 and 5.5
points over training from scratch for the CNN, and 4.2, 7.2 and 8.1 for the AdderNet. Frozen
features do worse than training from scratch.

ResNet-20 as CNN and AdderNet, trained on CIFAR-10 by `adder_cifar10.py`, learns Fashion-MNIST (as
32×32 RGB) from 10, 100 and 1,000 labels a class in three ways: from scratch, fine-tuned in full
from the CIFAR-10 weights, and with all of those weights frozen below a new classifier. Every way
takes the same steps of the same recipe on the same labels. The learning rate is the one of
training from scratch: on 2,000 training images held out, fine-tuning at 0.1 did better than at 0.03
and 0.01, with 10 labels a class and with 100.

Ours, means over seeds 0 and 1 (at 1,000 labels seed 0), of all 10,000 test images, from CIFAR-10
networks of 12 epochs (87.34 and 84.12 % there), 312 steps of 64 images each; 25 minutes of training
beside other programs on two cores of an AMD EPYC (`results/transfer_learning.json`, table in
README.md).

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
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from nnlab import figures, runs, training, vision
from nnlab.arithmetics import ADDER, FLOAT
from nnlab.errors import InputError
from nnlab.figures.plots import COLOURS
from nnlab.models import resnet20
from nnlab.optim import adder_recipe, freeze
from nnlab.runs.checkpoints import Checkpoints
from nnlab.runs.fields import Positive, PositiveInt, Seed, Some, SomeOf
from nnlab.runs.script import run

ARITHMETICS = {"CNN": FLOAT, "AdderNet": ADDER}
WAYS = ("scratch", "fine-tuned", "frozen")
CLASSIFIER = re.compile(r"(Dense_0|BatchNorm_1)/").match


@dataclasses.dataclass(frozen=True)
class Config(vision.ImageRun):
    out: str = "runs/transfer_learning"
    running_statistics: bool = True  # as the committed result
    pretrained: str = "runs/adder_cifar10"
    """Run folder of adder_cifar10.py, with the networks to start from."""
    networks: Annotated[tuple[str, ...], SomeOf(ARITHMETICS)] = ("CNN", "AdderNet")
    ways: Annotated[tuple[str, ...], SomeOf(WAYS)] = WAYS
    """Some of scratch, fine-tuned and frozen."""
    dataset: vision.ImageSet = "fashion_mnist"
    labels: Some[PositiveInt] = (10, 100, 1000)
    """Labelled images of each class."""
    seeds: Some[Seed] = (0, 1)
    """Seeds of the chosen images, the new layers and the order of images; the most labels are
    trained with the first seed only."""
    epochs: PositiveInt = 2
    """Passes over as many images as the most labels make; fewer images are repeated."""
    batch_size: PositiveInt = 64
    learning_rate: Positive = 0.1
    """Peak learning rate of SGD (cosine decay), in every way."""


def main(config: Config) -> None:
    found = config.images(border=(32, 32), border_first=True)  # black around the digits
    train, test = found.train, (rgb(found.test[0]), found.test[1])
    protocol = config.protocol(found)
    if (chooses := found.validation) is not None:
        protocol |= {"validation": (rgb(chooses[0]), chooses[1])}
    images = found.classes * max(config.labels)
    numbers = jnp.arange(images), jnp.arange(images)
    steps = config.epochs * training.steps_per_epoch(numbers, config.batch_size)
    trained = {name: pretrained(name, config) for name in config.networks}
    with config.open(notes=notes(found)) as record:
        # Each network's program of a way serves all its numbers of labels and all seeds.
        jax.config.update("jax_compilation_cache_dir", str(record.folder.path / "compiled"))
        record.result({"steps": steps})
        for count, seed in itertools.product(config.labels, config.seeds):
            if count == max(config.labels) and seed != config.seeds[0]:
                continue
            picked = chosen(train[1], count, images, seed)
            feed = training.in_memory((rgb(train[0][picked]), train[1][picked]), config.batch_size)
            for name, way in itertools.product(config.networks, config.ways):
                model = resnet20(found.classes, ARITHMETICS[name])
                rate = optax.cosine_decay_schedule(config.learning_rate, steps)
                optimizer = adder_recipe(steps, rate)
                if way == "frozen":
                    optimizer = freeze(optimizer, lambda path: not CLASSIFIER(path))
                state = training.init(jax.random.key(seed), model, optimizer, test[0])
                if way != "scratch":
                    state = training.transfer(trained[name], state, optimizer, replace=CLASSIFIER)
                fitted = runs.fit(
                    f"{name}_{way}_{count}_{seed}",
                    state,
                    training.train_step(
                        model,
                        optimizer,
                        augment=vision.random_crop_and_flip,
                        gradient_norm=config.gradient_norm,
                    ),
                    training.evaluation(model),
                    feed,
                    test,
                    epochs=config.epochs,
                    folder=record.folder,
                    keep=1,
                    learning_rate=rate,
                    **protocol,
                )
                history = fitted.history
                row = {"network": name, "way": way, "labels a class": count, "seed": seed}
                row |= {"test accuracy / %": round(100 * fitted.tested.metrics["accuracy"], 2)}
                row |= {"seconds": round(sum(history["seconds"]), 1)}
                print(*row.values(), flush=True)
                record.row(row | {"history": history}, "rows")
                record.result({"table": table(record.rows("rows"))})
        figures.print_table(record.rows())
        record.figure(figure(record.rows()))
        by, digits = ("labels a class", "network", "way"), {"test accuracy / %": 2}
        seeds = figures.over_seeds(record.rows("rows"), by, digits)
        vision.write_image_report(record, found, table=seeds)


def pretrained(name: str, config: Config) -> dict[str, Any]:
    """Return the variables of a network of adder_cifar10.py."""
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


def notes(found: vision.Images) -> dict[str, Any]:
    """Return what the networks' files say of their images, which `rgb` gives three channels."""
    how = found.preparation
    mean, std = (each * (3 // how.channels) for each in (how.mean, how.std))
    how = dataclasses.replace(how, channels=3, mean=mean, std=std)
    return dataclasses.replace(found, preparation=how).notes


def rgb(images: jax.Array) -> jax.Array:
    return jnp.repeat(images, 3 // images.shape[-1], axis=-1)


def chosen(labels: jax.Array, count: int, images: int, seed: int) -> np.ndarray:
    """Return the indices of `count` images of each class, repeated up to `images` of them."""
    order = np.random.default_rng(seed).permutation(len(labels))
    drawn = np.asarray(labels)[order]
    some = [order[drawn == label][:count] for label in np.unique(drawn)]
    if min(map(len, some)) < count:
        raise InputError(
            f"--labels must be at most the {min(map(len, some))} images of a class, not {count}."
        )
    return np.resize(np.concatenate(some), images)


def table(rows) -> list[dict[str, Any]]:
    """Return the means over the seeds, and the least and greatest of them."""
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


def figure(table) -> Figure:
    """Draw test accuracy by labels a class: the mean over seeds, with the least and greatest."""
    drawing = Figure(figsize=(6, 4), layout="constrained")
    axes = drawing.subplots()
    names = dict.fromkeys(row["network"] for row in table)
    for name, style in zip(names, ("o-", "s--"), strict=False):
        for way, colour in zip(WAYS, COLOURS, strict=False):
            some = [r for r in table if (r["network"], r["way"]) == (name, way)]
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
