"""Can a network that does not multiply say where things are, and which claims of the paper hold?

Answer: Not measured yet.

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
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from learning import Data, DetectionRun, each_row, learnt, network_file, read, recipe

from nnlab import models, runs, training
from nnlab.arithmetics import ADDER, NAMED, Arithmetic
from nnlab.costs import inference_costs
from nnlab.errors import InputError
from nnlab.layers import AdderConv
from nnlab.optim import freeze
from nnlab.runs.fields import Fraction, PositiveInt, SomeOf
from nnlab.runs.script import run
from nnlab.vision.datasets.labelled import Boxes
from nnlab.vision.detection.anchors import clustered_anchors
from nnlab.vision.detection.yolo_detectors import YoloV3Detector
from nnlab.vision.object_augment import random_flip_with_boxes, random_resized_crop_with_boxes


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
COSTS = ("multiplications", "additions", "parameter bytes", "energy / µJ")
TRAINED = ("float", "adder", "adder-sign", "float-on", "float-frozen", "adder-on", "adder-frozen")
TRAINED += ("conjugate_adder", "adder_sr", "shift_add", "shift_q", "shift_ps", "ternary", "bitnet")
TRAINED += ("binary_connect", "xnor", "bireal", "dorefa_1_2")


@dataclasses.dataclass(frozen=True)
class Config(DetectionRun):
    out: str = "runs/bccd_yolo"
    networks: Annotated[tuple[str, ...], SomeOf(KINDS)] = TRAINED
    """An arithmetic, adder-sign, and float or adder with -on or -frozen."""
    epochs: PositiveInt = 60
    height: PositiveInt = 192
    """Height that pictures are brought to, a multiple of 16, as the width."""
    width: PositiveInt = 256
    crops: bool = True
    """Cut a random part of each picture out in training, half of its area or more."""
    ignore: Fraction = 0.5
    """IoU with an object above which a box that is not responsible learns nothing."""
    every: PositiveInt = 5


class Frozen(nn.Module):
    """A network whose BatchNorm keeps its running statistics in training, too."""

    network: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return self.network(x, train=False)


def main(config: Config) -> None:
    if config.height % 16 or config.width % 16:
        raise InputError(
            f"--height and --width must be multiples of 16, not {config.height} and {config.width}."
        )
    data = read(config)
    detector = detector_of(data.train[1], config)
    goes_on = {name: kind.goes_on for name, kind in KINDS.items()}

    def of(name: str, seed: int, record: runs.Record) -> dict[str, Any]:
        return train(name, seed, config, data, detector, record)

    each_row(config, data, goes_on, of, COSTS)


def detector_of(boxes: Boxes, config: Config) -> YoloV3Detector:
    """Return the meaning of outputs, with anchors clustered from the boxes to train on."""
    corners = boxes.boxes[boxes.mask]
    anchors = clustered_anchors(corners[:, 2:] - corners[:, :2], 3)
    return YoloV3Detector(
        (config.height, config.width),
        tuple((round(float(width), 1), round(float(height), 1)) for width, height in anchors),
        groups=((0, 1, 2),),
        ignore=config.ignore,
    )


def network(arithmetic: Arithmetic, classes: int) -> nn.Module:
    stages, top = (16, 32, 64, 128), (128, 128)
    return models.TinyYOLO(
        classes, arithmetic=arithmetic, anchors=3, stages=stages, kept=(), top=top
    )


def train(
    name: str,
    seed: int,
    config: Config,
    data: Data,
    detector: YoloV3Detector,
    record: runs.Record,
) -> dict[str, Any]:
    """Train a network, and return its row."""
    kind = KINDS[name]
    model = plain = network(kind.arithmetic, len(data.class_names))
    epochs = max(config.epochs // 4, 1) if kind.goes_on else config.epochs
    optimizer = recipe(config, epochs * (len(data.train[0]) // config.batch_size))
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
    fresh = bool(state.batch_stats) and not kind.frozen
    row, variables = learnt(
        {"network": name, "seed": seed, "epochs": epochs},
        config,
        data,
        record,
        model,
        state,
        optimizer,
        detector,
        cut_and_mirrored if config.crops else mirrored,
        fresh=fresh,
        adders=fresh and kind.arithmetic.needs_norm,
    )
    if variables is None:
        return row
    costs = inference_costs(model.apply, variables, jnp.asarray(few))
    row |= {key: costs[key] for key in COSTS[:-1]}
    return row | {COSTS[-1]: costs["energy / nJ"] / 1000}


mirrored = functools.partial(random_flip_with_boxes, vertical=True)


def cut_and_mirrored(key: jax.Array, images: jax.Array, boxes: Boxes) -> tuple[jax.Array, Boxes]:
    """Cut parts out of pictures, of about their shape, and mirror them."""
    first, second = jax.random.split(key)
    cut = random_resized_crop_with_boxes(
        first, images, boxes, scale=(0.5, 1.0), ratio=(1.1, 1.6), least_side=4.0
    )
    return mirrored(second, *cut)


if __name__ == "__main__":
    run(main, Config)
