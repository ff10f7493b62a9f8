"""Do detectors on a feature pyramid survive adders, and does what their paper advises help?

Answer: Not measured yet.

FCOS and Faster R-CNN with a ResNet-18 of half the width and a pyramid of 64 channels find red and
white cells and platelets in the 292 training pictures of BCCD, brought to 320 by 240 pixels, from
random weights; the 72 test pictures measure it. First convolutions and those that predict are
float; in `fcos-adder` and `faster-adder` all others are adders. Anchors are half of those
published, as the cells are small; pictures are mirrored both ways with their boxes. Adam with decay
goes up to its peak rate and down over the epochs; adder weights have a rate of their own. The
network of the last epoch counts: VOC's AP50 (all points) and COCO's AP, with statistics of
BatchNorm taken anew from training pictures.

Claims of the adder detection paper (AP of an adder FCOS with ResNet-50 on COCO, one network each).
All are of an adder backbone and neck with a float head, as there:

=======================  =========================================================================
`claim-fpn`              34.8: what the others change
`claim-pafpn`            34.9: a second way through the pyramid
`claim-pafpn-shortcuts`  36.1: and shortcuts around the 3×3 adders of the neck
`claim-r-pafpn`          36.5: and bottom-up first
`claim-sign`             `claim-fpn` with the sign of the difference as the gradient for inputs;
                         32.6 against 32.4 before other changes
`claim-frozen`           `claim-fpn` goes on for a quarter of the epochs with the statistics,
                         scales and offsets of its backbone frozen: NaN; `claim-on` goes on
                         without
=======================  =========================================================================

    python experiments/detection/bccd_two_stage.py --data-dir DIR
    python experiments/detection/bccd_two_stage.py --data-dir DIR --out runs/adder_claims \\
        --networks claim-fpn claim-pafpn claim-pafpn-shortcuts claim-r-pafpn claim-sign \\
        claim-frozen claim-on --seeds 0 1 2 --epochs 12 --height 144 --width 192

Each network and seed is a row, which is on disk once it is trained; with `--resume` it goes on
within one.

References:
    Chen et al., An empirical study of adder neural networks for object detection, NeurIPS 2021,
    https://arxiv.org/abs/2112.13608, tables 1 to 3.
    The BCCD data set, https://github.com/Shenggan/BCCD_Dataset, `ImageSets/Main`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple, cast

import jax
import numpy as np
from bccd_yolo import Data, figure, network_file, recipe, sheet
from flax.traverse_util import flatten_dict, unflatten_dict

from nnlab import figures, models, runs, training
from nnlab.arithmetics import ADDER, FLOAT
from nnlab.data.locate import find_given
from nnlab.errors import DivergedError, InputError
from nnlab.layers import AdderConv
from nnlab.runs.fields import DataDir, Positive, PositiveInt, Seed, Some, SomeOf
from nnlab.runs.script import run
from nnlab.vision.datasets.labelled import Boxes
from nnlab.vision.datasets.voc import voc_records
from nnlab.vision.detection import average_precision, coco_ap, voc_ap
from nnlab.vision.detection.detectors import loss_parts, total_loss
from nnlab.vision.detection.faster_rcnn import FasterRCNNDetector
from nnlab.vision.detection.fcos import FCOSDetector
from nnlab.vision.object_augment import random_flip_with_boxes
from nnlab.vision.pictures import Resize

SIZES = ((16.0,), (32.0,), (64.0,), (128.0,), (256.0,))  # of anchors, by level
HALF: dict[str, Any] = {
    **{"stage_sizes": (2, 2, 2, 2), "bottleneck": False},
    **{"features": 32, "neck_features": 64},
}
SIGNS = dataclasses.replace(ADDER, conv=functools.partial(AdderConv, input_rule="sign"))
CLAIM: dict[str, Any] = {"arithmetic": ADDER, "head": FLOAT}
FASTER: dict[str, Any] = {
    **{"hidden": 256, "before_nms": (500, 300), "after_nms": (300, 150), "sampled": 64},
    **{"anchor_sizes": SIZES},
}


class Kind(NamedTuple):
    """A network of the table: its class, its options, and the trained one that it goes on from."""

    make: Callable[..., Any]
    options: dict[str, Any]
    goes_on: str | None = None


KINDS = {
    "fcos": Kind(models.FCOS, {}),
    "fcos-adder": Kind(models.FCOS, {"arithmetic": ADDER}),
    "faster": Kind(models.FasterRCNN, FASTER),
    "faster-adder": Kind(models.FasterRCNN, FASTER | {"arithmetic": ADDER}),
    "claim-fpn": Kind(models.FCOS, CLAIM),
    "claim-pafpn": Kind(models.FCOS, CLAIM | {"neck_kind": "pafpn"}),
    "claim-pafpn-shortcuts": Kind(models.FCOS, CLAIM | {"neck_kind": "pafpn", "shortcuts": True}),
    "claim-r-pafpn": Kind(models.FCOS, CLAIM | {"neck_kind": "r-pafpn", "shortcuts": True}),
    "claim-sign": Kind(models.FCOS, CLAIM | {"arithmetic": SIGNS}),
    "claim-on": Kind(models.FCOS, CLAIM, "claim-fpn"),
    "claim-frozen": Kind(models.FCOS, CLAIM | {"frozen_norm": True}, "claim-fpn"),
}
FIRST = ("fcos", "faster", "fcos-adder", "faster-adder")


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/bccd_two_stage"
    data_dir: DataDir = None
    networks: Annotated[tuple[str, ...], SomeOf(KINDS)] = FIRST
    """fcos or faster, with -adder, or a claim."""
    seeds: Some[Seed] = (0,)
    epochs: PositiveInt = 30
    batch_size: PositiveInt = 8
    height: PositiveInt = 240
    """Of pictures."""
    width: PositiveInt = 320
    learning_rate: Positive = 2e-3
    """Peak learning rate."""
    adder_rate: Positive = 1e-2
    """Peak learning rate of the weights of adders."""
    weight_decay: Positive = 1e-2
    every: PositiveInt = 3
    """Epochs from one point of the curve to the next."""
    pictures: PositiveInt | None = None
    """Train on the first so many pictures; by default on all."""


def main(config: Config) -> None:
    data = read(config)
    folder = Path(config.out)
    for name, seed in itertools.product(config.networks, config.seeds):
        before = KINDS[name].goes_on
        if not before or before in config.networks:
            continue
        if not network_file(folder, before, seed).is_file():
            raise InputError(
                f"{config.out} holds no trained {before} of seed {seed} to go on from; name "
                f"{before} among --networks."
            )
    with config.open("networks", "seeds", notes={"classes": data.class_names}) as record:
        record.go_on()
        for seed, name in itertools.product(config.seeds, KINDS):
            done = {(row["network"], row["seed"]) for row in record.rows("rows")}
            if name in config.networks and (name, seed) not in done:
                record.row(train(name, seed, config, data, record), "rows")
                record.result({"table": table(record.rows("rows"))})
                record.figure(figure(record, data), dpi=100)
        figures.print_table(record.rows())


def read(config: Config) -> Data:
    """Read pictures and boxes."""
    expected = "BCCD's folders Annotations, ImageSets and JPEGImages"
    folder = find_given("BCCD", ("bccd/BCCD", "BCCD", "."), config.data_dir, expected)
    resize = Resize(config.height, config.width, "stretch")
    splits = voc_records(folder, splits=("trainval", "test"), resize=resize)
    pictures = min(config.pictures or len(splits[0]), len(splits[0]))
    if config.batch_size > pictures:
        raise InputError(
            f"--batch-size must be at most {pictures}, the pictures, not {config.batch_size}."
        )
    arrays = [
        each.gather(range(count))
        for each, count in zip(splits, (pictures, len(splits[1])), strict=True)
    ]
    pairs = [(images.astype(np.float32) / 255, boxes) for images, boxes in arrays]
    return Data(pairs[0], pairs[1], splits[0].class_names, cast(Any, None))


def train(name: str, seed: int, config: Config, data: Data, record: runs.Record) -> dict[str, Any]:
    """Train a network, keep what it finds in the first test pictures, and return its row."""
    kind, classes = KINDS[name], len(data.class_names)
    model = kind.make(classes, **HALF | kind.options)
    shape = config.height, config.width
    two_stage = kind.make is models.FasterRCNN
    detector = FasterRCNNDetector(shape) if two_stage else FCOSDetector(shape)
    epochs = max(config.epochs // 4, 1) if kind.goes_on else config.epochs
    feed = training.in_memory(data.train, config.batch_size)
    optimizer = recipe(cast(Any, config), epochs * feed.steps_per_epoch)
    few = data.train[0][:1]
    state = training.init(jax.random.key(seed), model, optimizer, few)
    if kind.goes_on:
        file = network_file(record.folder.path, kind.goes_on, seed)
        found = like(state, dict(models.load_model(file).variables))
        state = state._replace(**found, opt_state=optimizer.init(found["params"]))

    def mirrored(key: jax.Array, images: jax.Array, boxes: Boxes) -> Any:
        images, boxes = random_flip_with_boxes(key, images, boxes, vertical=True)
        return ((images, boxes) if two_stage else images), boxes

    measures: Any = {"loss": total_loss(detector), "metrics": loss_parts(detector)}
    step = training.train_step(model, optimizer, **measures, mix=mirrored)
    evaluate = training.evaluation(model, **measures, batch_size=config.batch_size)
    measured = 20 * config.batch_size
    renew = training.fresh_statistics(model, data.train[0][:measured], config.batch_size)

    @jax.jit
    def program(variables: Any, images: jax.Array) -> Any:
        outputs: Any = model.apply(variables, images)
        return detector.detect(outputs)

    def predictor(state: Any):
        state = renew(state)
        return functools.partial(
            program, {"params": state.params, "batch_stats": state.batch_stats}
        )

    def watch(moment: runs.Moment) -> None:
        if moment.epoch % config.every:
            return
        found = average_precision(predictor(moment.state), data.test, classes)
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
            statistics=renew if model.arithmetic.needs_norm else None,
            on_epoch=watch,
            diagnose=False,  # it would compare the loss with that of a classification
            keep=1,
        )
    except DivergedError as error:
        return row | {"ended": str(error).partition(";")[0]}
    predict = predictor(trained.last)
    measured_by = functools.partial(average_precision, predict, data.test, classes)
    found, coco = measured_by(measure=voc_ap), measured_by(measure=coco_ap)
    shown = jax.device_get(predict(data.test[0][: config.batch_size]))
    np.savez(sheet(record, name, seed), **shown._asdict())
    row |= {"AP50": found.mean, "AP": coco.scores.ap}
    row |= dict(zip((f"AP50 {each}" for each in data.class_names), found.by_class, strict=True))
    return row | {"seconds": round(sum(trained.history["seconds"]), 1)}


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each network: means over its seeds, and the range of AP50."""
    found = []
    for name in dict.fromkeys(row["network"] for row in rows):
        of = [row for row in rows if row["network"] == name]
        whole = [row for row in of if "AP50" in row]
        ended = len(of) - len(whole)
        row: dict[str, Any] = {"network": name, "seeds": len(of), "ended early": ended}
        if whole:
            scores = [each["AP50"] for each in whole]
            row |= {"AP50": float(np.mean(scores)), "lowest": min(scores), "highest": max(scores)}
            means = [key for key in whole[0] if key == "AP" or key.startswith("AP50 ")]
            means.append("seconds")
            row |= {key: float(np.mean([each[key] for each in whole])) for key in means}
        found.append(row)
    return found


def like(state: training.State, variables: dict[str, Any]) -> dict[str, Any]:
    """Return trained variables in the collections of a state, which may hold frozen BatchNorm."""
    arrays = {
        path: array for tree in variables.values() for path, array in flatten_dict(tree).items()
    }
    return {
        name: unflatten_dict({path: arrays[path] for path in flatten_dict(getattr(state, name))})
        for name in ("params", "batch_stats")
    }


if __name__ == "__main__":
    run(main, Config)
