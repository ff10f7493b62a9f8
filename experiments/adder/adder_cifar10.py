"""How far is an AdderNet from its CNN on CIFAR-10? ResNet-20 in three arithmetics.

Answer: After 12 of the published 400 epochs the AdderNet is 3.2 points below its CNN: CNN 87.34 %,
AdderNet 84.12 %, BNN 59.39 %.

By the released recipe: SGD with momentum 0.9, weight decay 5e-4 after the adder rate (eta 0.2),
cosine from 0.1, batch 256, crops of images padded by 4 and flips, first convolution and classifier
float. Published after 400 epochs (AdderNet, CVPR 2020, table 2), test accuracy in percent: CNN
92.25, AdderNet 91.84, BNN 84.87 (that one trained by DoReFa's rules, which ours is not).

Ours after 12 epochs at batch 128, seed 0, on two cores of an AMD EPYC that other programs used too
(`results/adder_cifar10.json`, learning curves beside it): CNN 87.34, AdderNet 84.12,
BNN 59.39, in 39, 31 and 26 minutes.

    python experiments/adder/adder_cifar10.py --data-dir DIR --epochs 12 --batch-size 128
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import optax

from nnlab import runs, training, vision
from nnlab.arithmetics import ADDER, BINARY, FLOAT
from nnlab.figures.plots import Curve, figure_curves
from nnlab.models import resnet20
from nnlab.optim import adder_recipe
from nnlab.runs import hosts
from nnlab.runs.fields import Count, Positive, PositiveInt, Seed
from nnlab.runs.script import run
from nnlab.training.epochs import check_divides

ARITHMETICS = {"CNN": FLOAT, "AdderNet": ADDER, "BNN": BINARY}
PUBLISHED = {"CNN": 92.25, "AdderNet": 91.84, "BNN": 84.87}  # after 400 epochs


@dataclasses.dataclass(frozen=True)
class Config(vision.ImageRun):
    out: str = "runs/adder_cifar10"
    running_statistics: bool = True  # as the committed result
    networks: tuple[Literal["CNN", "AdderNet", "BNN"], ...] = ("CNN", "AdderNet", "BNN")
    dataset: vision.ImageSet = "cifar10"
    epochs: PositiveInt = 400
    batch_size: PositiveInt = 256
    learning_rate: Positive = 0.1
    """Peak learning rate of SGD (cosine decay)."""
    augment: Literal["crop", "cutout", "rand_augment"] = "crop"
    """Besides crops and mirror images: none, a hole of 16 pixels, or RandAugment."""
    mix: Literal["none", "mixup", "cutmix"] = "none"
    """Mix images and their labels, blended (mixup) or as boxes of each other (CutMix)."""
    seed: Seed = 0
    on_nan: Literal["stop", "skip"] = "stop"
    """If a gradient is not finite: stop, or skip up to ten such steps in a row."""
    checkpoint_minutes: Positive = 5.0
    """Minutes between checkpoints."""
    stream: bool = False
    """Read images from disk as they are needed, instead of holding all in memory; folders and sets
    of TensorFlow Datasets that would take more than 2 GB are streamed in any case."""
    workers: Count = 0
    """Processes that read for --stream; with 0 a thread reads."""
    coordinator: str | None = None
    """HOST:PORT of process 0 of several that train as one, or auto to ask the cluster."""
    processes: int | None = None
    """How many processes train as one."""
    process: int | None = None
    """Which of them this process is, from 0."""
    wait: PositiveInt | None = None
    """Seconds to wait for the others (15 on one machine, otherwise 300)."""


def main(config: Config) -> None:
    mesh = join(config)
    images = config.images(stream=config.stream or None)
    feed = images.feed(config.batch_size, config.seed, config.workers)
    free = "checkpoint_minutes", "workers", "coordinator", "processes", "process", "wait"
    with config.open(*free, notes=images.notes, reasons=runs.COSINE) as record:
        augment, mix = augmentation(config, images)
        for name in config.networks:
            model = resnet20(images.classes, ARITHMETICS[name])
            rate = optax.cosine_decay_schedule(
                config.learning_rate, config.epochs * feed.steps_per_epoch
            )
            optimizer = adder_recipe(config.epochs * feed.steps_per_epoch, rate)
            if config.on_nan == "skip":
                optimizer = optax.apply_if_finite(optimizer, max_consecutive_errors=10)
            trained = runs.fit(
                name,
                training.init(jax.random.key(config.seed), model, optimizer, images.test[0]),
                training.train_step(
                    model,
                    optimizer,
                    augment=augment,
                    mix=mix,
                    gradient_norm=config.gradient_norm,
                ),
                training.evaluation(model, mesh=mesh),
                feed,
                images.test,
                epochs=config.epochs,
                folder=record.folder,
                mesh=mesh,
                checkpoint_minutes=config.checkpoint_minutes,
                learning_rate=rate,
                **config.protocol(images),
            )
            history = trained.history
            accuracy = round(100 * trained.tested.metrics["accuracy"], 2)
            minutes = round(sum(history["seconds"]) / 60, 1)
            row = {"network": name, "test_accuracy": accuracy, "minutes": minutes}
            record.row(row | {"history": history}, "rows")
            hosts.say(
                f"| {name} | {PUBLISHED[name]} | {accuracy:.2f} | {config.seed} "
                f"| {config.epochs} (400) | {minutes:.1f} | {runs.hardware()} |",
            )
        curves = [Curve(row["network"], row["history"]) for row in record.rows("rows")]
        record.figure(figure_curves(curves))
        vision.write_image_report(record, images)


def augmentation(config: Config, images: vision.Images) -> tuple[Any, Any]:
    """Return `augment` and `mix` of `training.train_step`."""
    how = images.preparation
    more = {
        "cutout": vision.cutout,
        "rand_augment": functools.partial(vision.rand_augment, mean=how.mean, std=how.std),
    }
    augment = vision.random_crop_and_flip
    if config.augment != "crop":
        augment = vision.chain(augment, more[config.augment])
    mixes = {"none": None, "mixup": vision.mixup, "cutmix": vision.cutmix}
    mix = mixes[config.mix]
    return augment, mix and functools.partial(mix, classes=images.classes)


def join(config: Config) -> jax.sharding.Mesh | None:
    """Join the other processes if there are any; return the mesh of all devices if several."""
    if (config.coordinator, config.processes, config.process) != (None, None, None):
        known = config.coordinator if config.coordinator != "auto" else None
        hosts.initialize(known, config.processes, config.process, timeout=config.wait)
    check_divides(jax.device_count(), config.batch_size)
    return training.data_mesh() if jax.device_count() > 1 else None


if __name__ == "__main__":
    run(main, Config)
