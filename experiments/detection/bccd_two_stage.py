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
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from learning import Data, DetectionRun, each_row, learnt, network_file, read, recipe

from nnlab import models, runs, training
from nnlab.arithmetics import ADDER, FLOAT
from nnlab.layers import AdderConv
from nnlab.runs.fields import SomeOf
from nnlab.runs.script import run
from nnlab.vision.datasets.labelled import Boxes
from nnlab.vision.detection.faster_rcnn import FasterRCNNDetector
from nnlab.vision.detection.fcos import FCOSDetector
from nnlab.vision.object_augment import random_flip_with_boxes

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
class Config(DetectionRun):
    out: str = "runs/bccd_two_stage"
    networks: Annotated[tuple[str, ...], SomeOf(KINDS)] = FIRST
    """fcos or faster, with -adder, or a claim."""


def main(config: Config) -> None:
    data = read(config)
    goes_on = {name: kind.goes_on for name, kind in KINDS.items()}

    def of(name: str, seed: int, record: runs.Record) -> dict[str, Any]:
        return train(name, seed, config, data, record)

    each_row(config, data, goes_on, of)


def detector_of(make: Callable[..., Any], config: Config) -> FasterRCNNDetector | FCOSDetector:
    shape = config.height, config.width
    return FasterRCNNDetector(shape) if make is models.FasterRCNN else FCOSDetector(shape)


def train(name: str, seed: int, config: Config, data: Data, record: runs.Record) -> dict[str, Any]:
    """Train a network, and return its row."""
    kind = KINDS[name]
    model = kind.make(len(data.class_names), **HALF | kind.options)
    epochs = max(config.epochs // 4, 1) if kind.goes_on else config.epochs
    optimizer = recipe(config, epochs * (len(data.train[0]) // config.batch_size))
    state = training.init(jax.random.key(seed), model, optimizer, data.train[0][:1])
    if kind.goes_on:
        file = network_file(record.folder.path, kind.goes_on, seed)
        found = like(state, dict(models.load_model(file).variables))
        state = state._replace(**found, opt_state=optimizer.init(found["params"]))

    def mirrored(key: jax.Array, images: jax.Array, boxes: Boxes) -> Any:
        images, boxes = random_flip_with_boxes(key, images, boxes, vertical=True)
        takes_boxes = kind.make is models.FasterRCNN
        return ((images, boxes) if takes_boxes else images), boxes

    row, _ = learnt(
        {"network": name, "seed": seed, "epochs": epochs},
        config,
        data,
        record,
        model,
        state,
        optimizer,
        detector_of(kind.make, config),
        mirrored,
        fresh=True,
        adders=model.arithmetic.needs_norm,
    )
    return row


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
