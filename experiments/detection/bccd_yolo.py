"""Can a network that does not multiply say where things are, and which claims of the paper hold?

Answer: Not measured yet, but for float on mirrored pictures alone: an AP50 of 0.784, one seed, and
0.809 at epoch 40 of 60, where objectness begins to fit the training pictures too well.

A small one-scale YOLO (396,200 parameters: six 3×3 convolutions of at most 128 channels, stride 16,
3 anchors) finds red and white cells and platelets in the 292 training pictures of BCCD, brought to
256 by 192 pixels, from random weights; the 72 test pictures measure it. First and last convolution
are float. Its anchors are clustered from the training boxes, its loss is v3's, and pictures are cut
to half of their area or more and mirrored both ways, together with their boxes. Adam with decay
goes up to its peak rate and down over the epochs; adder weights have a rate of their own. The
network of the last epoch counts: VOC's AP50 (all points) and COCO's AP, with statistics of
BatchNorm taken anew from training pictures.

Claims of the adder detection paper (AP of an adder FCOS on COCO, one network each):

=================  ===========================================================================
`adder-frozen`     frozen BatchNorm gives NaN; here a trained `adder` of the seed goes on for a
                   quarter of the epochs with its BatchNorm frozen, and `adder-on` without;
                   `float-frozen` and `float-on` likewise
`adder-sign`       the sign of the difference as the gradient for inputs (32.6) instead of the
                   clipped difference (32.4)
=================  ===========================================================================

Known: a trial of ours of the same network in PyTorch came to 0.835 to 0.848 in 35 to 55 epochs, one
seed; 0.84 was reported for a pretrained YOLO v3 on another split.

At 128 by 96 pixels and 30 epochs, cuts and `--ignore 0.5` give 0.586, and mirrors alone with 0.7
give 0.568, one seed each; hence the defaults.

    python experiments/detection/bccd_yolo.py --data-dir DIR
    python experiments/detection/bccd_yolo.py --data-dir DIR --resume --seeds 1 2 \\
        --networks float adder adder-sign

    python experiments/detection/bccd_yolo.py --folder PICTURES --networks float --out runs/own

The last trains on pictures of your own (docs/detection.md says in which forms).

Each network and seed is a row, which is on disk once it is trained; with `--resume` it goes on
within one.

References:
    Chen et al., An empirical study of adder neural networks for object detection, NeurIPS 2021,
    https://arxiv.org/abs/2112.13608, tables 1 and 3.
    The BCCD data set, https://github.com/Shenggan/BCCD_Dataset, `ImageSets/Main`.
"""

import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from drawing import curves_and_boxes
from matplotlib.figure import Figure

from nnlab import figures, models, runs, training, vision
from nnlab.arithmetics import ADDER, NAMED, Arithmetic
from nnlab.costs import inference_costs
from nnlab.data.locate import find_given
from nnlab.errors import DivergedError, InputError
from nnlab.layers import AdderConv
from nnlab.optim import adder_recipe, freeze
from nnlab.runs.descriptions import described
from nnlab.runs.fields import DataDir, Fraction, OneOf, Positive, PositiveInt, Seed, Some, SomeOf
from nnlab.runs.script import run
from nnlab.vision.datasets.labelled import Boxes
from nnlab.vision.datasets.voc import voc_records
from nnlab.vision.datasets.yolo_text import yolo_records
from nnlab.vision.detection import average_precision, coco_ap, voc_ap
from nnlab.vision.detection.anchors import clustered_anchors
from nnlab.vision.detection.detectors import loss_parts, total_loss
from nnlab.vision.detection.yolo_detectors import YoloV3Detector
from nnlab.vision.object_augment import random_flip_with_boxes, random_resized_crop_with_boxes
from nnlab.vision.pictures import Resize


class Kind(NamedTuple):
    """A network of the table.

    Attributes:
        arithmetic: of all convolutions but the first and the last.
        goes_on: the trained network that it goes on from.
        frozen: whether BatchNorm keeps its statistics, scales and offsets.
    """

    arithmetic: Arithmetic
    goes_on: str | None = None
    frozen: bool = False


KINDS = {name: Kind(arithmetic) for name, arithmetic in NAMED.items()}
SIGNS = dataclasses.replace(ADDER, conv=functools.partial(AdderConv, input_rule="sign"))
KINDS["adder-sign"] = Kind(SIGNS)
for _name in ("float", "adder"):
    KINDS[f"{_name}-on"] = Kind(NAMED[_name], _name)
    KINDS[f"{_name}-frozen"] = Kind(NAMED[_name], _name, frozen=True)
FORMS: dict[str, Any] = {"voc": voc_records, "yolo": yolo_records}
TRAINED = ("float", "adder", "adder-sign", "float-on", "float-frozen", "adder-on", "adder-frozen")
TRAINED += ("conjugate_adder", "adder_sr", "shift_add", "shift_q", "shift_ps", "ternary", "bitnet")
TRAINED += ("binary_connect", "xnor", "bireal", "dorefa_1_2")


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/bccd_yolo"
    data_dir: DataDir = None
    folder: str | None = None
    """Pictures with boxes of your own instead, in the form of `--form`."""
    form: Annotated[str, OneOf(FORMS)] = "voc"
    """Of that folder."""
    networks: Annotated[tuple[str, ...], SomeOf(KINDS)] = TRAINED
    """An arithmetic, adder-sign, and float or adder with -on or -frozen."""
    seeds: Some[Seed] = (0,)
    epochs: PositiveInt = 60
    batch_size: PositiveInt = 8
    height: PositiveInt = 192
    """Of pictures; a multiple of 16."""
    width: PositiveInt = 256
    learning_rate: Positive = 2e-3
    """Peak learning rate."""
    adder_rate: Positive = 1e-2
    """Peak learning rate of the weights of adders."""
    weight_decay: Positive = 1e-2
    crops: bool = True
    """Cut a random part of each picture out in training, half of its area or more."""
    ignore: Fraction = 0.5
    """IoU with an object above which a box that is not responsible learns nothing."""
    every: PositiveInt = 5
    """Epochs from one point of the curve to the next."""


class Data(NamedTuple):
    train: tuple[np.ndarray, Boxes]
    test: tuple[np.ndarray, Boxes]
    class_names: tuple[str, ...]
    detector: YoloV3Detector


class Frozen(nn.Module):
    """A network whose BatchNorm keeps its running statistics in training, too."""

    network: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return self.network(x, train=False)


def main(config: Config) -> None:
    data = read(config)
    missing = [
        (kind.goes_on, seed)
        for name, seed in itertools.product(config.networks, config.seeds)
        if (kind := KINDS[name]).goes_on
        and kind.goes_on not in config.networks
        and not network_file(Path(config.out), kind.goes_on, seed).is_file()
    ]
    if missing:
        raise InputError(
            f"{config.out} holds no trained {missing[0][0]} of seed {missing[0][1]} to go on from;"
            f" name {missing[0][0]} among --networks."
        )
    channels = data.train[0].shape[-1]
    range_ = (0.0,) * channels, (1.0,) * channels
    images = vision.Preparation(config.height, config.width, channels, *range_, fit="stretch")
    detector = described("detector", data.detector)
    notes = {"classes": data.class_names, "images": images.as_notes(), "detector": detector}
    with config.open("networks", "seeds", notes=notes) as record:
        record.go_on()
        for seed, name in itertools.product(config.seeds, KINDS):
            done = {(row["network"], row["seed"]) for row in record.rows("rows")}
            if name in config.networks and (name, seed) not in done:
                record.row(train(name, seed, config, data, record), "rows")
                record.result({"table": table(record.rows("rows"))})
                record.figure(figure(record, data), dpi=100)
        figures.print_table(record.rows())


def read(config: Config) -> Data:
    """Read pictures and boxes, and cluster anchors from those to train on."""
    if config.height % 16 or config.width % 16:
        raise InputError(
            f"--height and --width must be multiples of 16, not {config.height} and {config.width}."
        )
    resize = Resize(config.height, config.width, "stretch")
    if config.folder is None:
        expected = "BCCD's folders Annotations, ImageSets and JPEGImages"
        folder = find_given("BCCD", ("bccd/BCCD", "BCCD", "."), config.data_dir, expected)
        splits = voc_records(folder, splits=("trainval", "test"), resize=resize)
    else:
        splits = FORMS[config.form](config.folder, resize=resize)
    if config.batch_size > len(splits[0]):
        raise InputError(
            f"--batch-size must be at most {len(splits[0])}, the pictures, not {config.batch_size}."
        )
    arrays = [each.gather(range(len(each))) for each in splits]
    pairs = [(images.astype(np.float32) / 255, boxes) for images, boxes in arrays]
    boxes = pairs[0][1]
    corners = boxes.boxes[boxes.mask]
    anchors = clustered_anchors(corners[:, 2:] - corners[:, :2], 3)
    detector = YoloV3Detector(
        (config.height, config.width),
        tuple((round(float(width), 1), round(float(height), 1)) for width, height in anchors),
        groups=((0, 1, 2),),
        ignore=config.ignore,
    )
    return Data(pairs[0], pairs[1], splits[0].class_names, detector)


def network(arithmetic: Arithmetic, classes: int) -> nn.Module:
    stages, top = (16, 32, 64, 128), (128, 128)
    return models.TinyYOLO(
        classes, arithmetic=arithmetic, anchors=3, stages=stages, kept=(), top=top
    )


def network_file(folder: Path, name: str, seed: int) -> Path:
    return folder / "networks" / f"{name}_{seed}.safetensors"


def train(name: str, seed: int, config: Config, data: Data, record: runs.Record) -> dict[str, Any]:
    """Train a network, keep what it finds in the first test pictures, and return its row."""
    kind = KINDS[name]
    model = plain = network(kind.arithmetic, len(data.class_names))
    epochs = max(config.epochs // 4, 1) if kind.goes_on else config.epochs
    feed = training.in_memory(data.train, config.batch_size)
    optimizer = recipe(config, epochs * feed.steps_per_epoch)
    few = data.train[0][:1]
    if kind.frozen:
        model = Frozen(plain)
        optimizer = freeze(optimizer, lambda path: "/bn/" in path)
    state = training.init(jax.random.key(seed), model, optimizer, few)
    if kind.goes_on:
        file = network_file(record.folder.path, kind.goes_on, seed)
        found = dict(models.load_model(file).variables)
        found = {key: {"network": tree} for key, tree in found.items()} if kind.frozen else found
        state = state._replace(params=found["params"], batch_stats=found["batch_stats"])
        state = state._replace(opt_state=optimizer.init(state.params))
    augment = cut_and_mirrored if config.crops else mirrored
    step = training.train_step(
        model,
        optimizer,
        total_loss(data.detector),
        metrics=loss_parts(data.detector),
        mix=augment,
    )
    evaluate = training.evaluation(
        model,
        total_loss(data.detector),
        batch_size=config.batch_size,
        metrics=loss_parts(data.detector),
    )
    measured = 20 * config.batch_size
    renew: Any = training.fresh_statistics(model, data.train[0][:measured], config.batch_size)
    renew = (lambda state: state) if kind.frozen or not state.batch_stats else renew

    @jax.jit
    def program(variables: Any, images: jax.Array) -> Any:
        return data.detector.detect(model.apply(variables, images))

    def predictor(state: Any):
        state = renew(state)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return functools.partial(program, variables)

    def watch(moment: runs.Moment) -> None:
        if moment.epoch % config.every:
            return
        found = average_precision(predictor(moment.state), data.test, len(data.class_names))
        point = {"network": name, "seed": seed, "epoch": moment.epoch, "AP50": found.mean}
        points = [p for p in record.rows("curve") if (*p.values(),)[:3] != (*point.values(),)[:3]]
        record.result({"curve": [*points, point]})

    row: dict[str, Any] = {"network": name, "seed": seed, "epochs": epochs}
    try:
        trained = runs.fit(
            f"{name}_{seed}",
            state,
            step,
            evaluate,
            feed,
            data.test,
            epochs=epochs,
            folder=record.folder,
            score=runs.least_loss,
            statistics=renew if kind.arithmetic.needs_norm and not kind.frozen else None,
            on_epoch=watch,
            diagnose=False,  # it would compare the loss with that of a classification
            keep=1,
        )
    except DivergedError as error:
        return row | {"ended": str(error).partition(";")[0]}
    predict = predictor(trained.last)
    measures = functools.partial(average_precision, predict, data.test, len(data.class_names))
    found, coco = measures(measure=voc_ap), measures(measure=coco_ap)
    shown = jax.device_get(predict(data.test[0][: config.batch_size]))
    np.savez(sheet(record, name, seed), **shown._asdict())
    row |= {"AP50": found.mean, "AP": coco.scores.ap}
    row |= dict(zip((f"AP50 {each}" for each in data.class_names), found.by_class, strict=True))
    variables = {"params": trained.last.params, "batch_stats": trained.last.batch_stats}
    costs = inference_costs(model.apply, variables, jnp.asarray(few))
    row |= {key: costs[key] for key in ("multiplications", "additions", "parameter bytes")}
    row |= {"energy / µJ": costs["energy / nJ"] / 1000}
    return row | {"seconds": round(sum(trained.history["seconds"]), 1)}


mirrored = functools.partial(random_flip_with_boxes, vertical=True)


def cut_and_mirrored(key: jax.Array, images: jax.Array, boxes: Boxes) -> tuple[jax.Array, Boxes]:
    """Cut parts out of pictures, of about their shape, and mirror them."""
    first, second = jax.random.split(key)
    cut = random_resized_crop_with_boxes(
        first, images, boxes, scale=(0.5, 1.0), ratio=(1.1, 1.6), least_side=4.0
    )
    return mirrored(second, *cut)


def recipe(config: Config, steps: int) -> optax.GradientTransformation:
    """Return Adam with decay for float weights, and for others what suits them, in one cycle."""

    def cycle(peak: float) -> optax.Schedule:
        return optax.cosine_onecycle_schedule(max(steps, 4), peak)

    rate = cycle(config.learning_rate)
    return adder_recipe(
        steps,
        rate,
        binary_learning_rate=rate,
        shift_learning_rate=rate,
        parts={
            "float": optax.adamw(rate, weight_decay=config.weight_decay),
            "adder": optax.adam(cycle(config.adder_rate)),
        },
    )


def sheet(record: runs.Record, name: str, seed: int) -> Path:
    """Return the file of what a network finds in the first test pictures."""
    return record.folder.path / f"{name}_{seed}.npz"


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each network: means over its seeds, and the range of AP50."""
    found = []
    for name in dict.fromkeys(row["network"] for row in rows):
        of = [row for row in rows if row["network"] == name]
        whole = [row for row in of if "AP50" in row]
        row: dict[str, Any] = {
            "network": name,
            "seeds": len(of),
            "ended early": len(of) - len(whole),
        }
        if whole:
            scores = [each["AP50"] for each in whole]
            row |= {"AP50": float(np.mean(scores)), "lowest": min(scores), "highest": max(scores)}
            means = [key for key in whole[0] if key == "AP" or key.startswith("AP50 ")]
            row |= {key: float(np.mean([each[key] for each in whole])) for key in means}
            costs = ("multiplications", "additions", "parameter bytes", "energy / µJ", "seconds")
            row |= {key: whole[0][key] for key in costs}
        found.append(row)
    return found


def figure(record: runs.Record, data: Data) -> Figure:
    names = dict.fromkeys(row["network"] for row in record.rows("rows"))
    files = {name: sheet(record, name, 0) for name in names}
    curve = [point for point in record.rows("curve") if point["seed"] == 0]
    lines = {
        name: sorted((p["epoch"], p["AP50"]) for p in curve if p["network"] == name)
        for name in dict.fromkeys(point["network"] for point in curve)
    }
    found = {name: np.load(file) for name, file in files.items() if file.is_file()}
    return curves_and_boxes(lines, *data.test, found)


if __name__ == "__main__":
    run(main, Config)
