"""Faster R-CNN, FCOS and RetinaNet: torchvision's names, PyTorch's outputs, and that they learn."""

import hashlib
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn

from nnlab import kernels, training
from nnlab.arithmetics import ADDER
from nnlab.errors import InputError
from nnlab.files.borrowing import borrow, lend
from nnlab.vision.datasets.labelled import Boxes
from nnlab.vision.detection import faster_rcnn, fcos, retinanet
from nnlab.vision.detection.detectors import loss_parts, total_loss
from nnlab.vision.detection.fast_rcnn import FastRCNN, FastRCNNDetector
from nnlab.vision.detection.faster_rcnn import FasterRCNN
from nnlab.vision.detection.fcos import FCOS
from nnlab.vision.detection.retinanet import RetinaNet

IMAGE = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
SMALL: Any = {
    **{"classes": 3, "stage_sizes": (1, 1, 1, 1), "bottleneck": False},
    **{"features": 4, "neck_features": 8},
}


def _shapes(model):
    with kernels.use("cpu"):
        return jax.eval_shape(model.init, jax.random.key(0), IMAGE)


def _count(params):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "frozen"),
    [
        (FasterRCNN(90), 41_755_286),
        (FasterRCNN(20), 41_449_656 - 53_120),
        (FasterRCNN(3), 41_362_531 - 53_120),
        (fcos.fcos_resnet50_fpn(), 32_269_600),
        (FCOS(80), 32_269_600 - 11 * 2_305 + 5),
        (retinanet.retinanet_resnet50_fpn(), 34_014_999),
    ],
)
def test_parameters(model, frozen):
    """Frozen BatchNorm has as many arrays, of which none is a parameter."""
    counts = _shapes(model.clone(frozen_norm=True)), _shapes(model)
    assert _count(counts[0]["params"]) == frozen
    assert _count(counts[1]["params"]) == frozen + 53_120
    assert _count(counts[0]) == _count(counts[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "names", "arrays", "digest"),
    [
        (
            *(faster_rcnn.fasterrcnn_resnet50_fpn, faster_rcnn.torch_names, 295),
            "d3874eb8bbf3a08c22d5f315caf0f0e92a1b88ba552fc7616adf9c357cc28634",
        ),
        (
            *(fcos.fcos_resnet50_fpn, fcos.torch_names, 319),
            "fb445da0d24907db164a2cb0e0e50df907f737d206f19dee9f2d1c666c0d16d1",
        ),
        (
            *(retinanet.retinanet_resnet50_fpn, retinanet.torch_names, 301),
            "abeb608050ce4785b7fac28071380bd64315eb3c2d97a5e45627159303746c8c",
        ),
    ],
    ids=["fasterrcnn", "fcos", "retinanet"],
)
def test_names_and_shapes_are_those_of_torchvision(make, names, arrays, digest):
    """The digest is that of the names and shapes in a state dict of torchvision 0.28."""
    model = make()
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.bool_), _shapes(model))
    lent = lend(zeros, names(model))
    lines = [f"{name} {list(array.shape)}" for name, array in sorted(lent.items())]
    assert len(lines) == arrays
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == digest
    frozen = make(frozen_norm=True)
    back = borrow(_shapes(frozen), lent, names(frozen))
    assert jax.tree.structure(back) == jax.tree.structure(_shapes(frozen))


class Body(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        for stage in range(4):
            inputs, features = width * 2 ** max(stage - 1, 0), width * 2**stage
            block, stride = nn.Module(), 2 if stage else 1
            block.conv1 = nn.Conv2d(inputs, features, 3, stride, 1, bias=False)
            block.bn1 = nn.BatchNorm2d(features)
            block.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
            block.bn2 = nn.BatchNorm2d(features)
            if stage:
                conv = nn.Conv2d(inputs, features, 1, stride, bias=False)
                block.downsample = nn.Sequential(conv, nn.BatchNorm2d(features))
            setattr(self, f"layer{stage + 1}", nn.Sequential(block))

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        stages = []
        for stage in range(4):
            (block,) = getattr(self, f"layer{stage + 1}")
            y = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))
            x = torch.relu(y + (block.downsample(x) if stage else x))
            stages.append(x)
        return stages


class Dense(nn.Module):
    """torchvision's FCOS or RetinaNet, by its rules and with its names."""

    def __init__(self, width, features, classes, convs, anchors, norm):
        super().__init__()
        self.backbone, self.norm = nn.Module(), norm
        self.backbone.body, self.backbone.fpn = Body(width), nn.Module()
        fpn: Any = self.backbone.fpn
        fpn.inner_blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width * 2**stage, features, 1)) for stage in (1, 2, 3)
        )
        fpn.layer_blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(features, features, 3, 1, 1)) for _ in range(3)
        )
        fpn.extra_blocks = nn.ModuleDict(
            {name: nn.Conv2d(features, features, 3, 2, 1) for name in ("p6", "p7")}
        )
        self.head = nn.Module()
        for name in ("classification_head", "regression_head"):
            layers: list[nn.Module] = []
            for _ in range(convs):
                conv = nn.Conv2d(features, features, 3, 1, 1)
                if norm:
                    layers += [conv, nn.GroupNorm(math.gcd(32, features), features), nn.ReLU()]
                else:
                    layers.append(nn.Sequential(conv, nn.ReLU()))
            part: Any = nn.Module()
            part.conv = nn.Sequential(*layers)
            setattr(self.head, name, part)
        head: Any = self.head
        head.classification_head.cls_logits = nn.Conv2d(features, anchors * classes, 3, 1, 1)
        head.regression_head.bbox_reg = nn.Conv2d(features, anchors * 4, 3, 1, 1)
        if norm:
            head.regression_head.bbox_ctrness = nn.Conv2d(features, 1, 3, 1, 1)

    def forward(self, x):
        backbone: Any = self.backbone
        fpn, (_, c3, c4, c5) = backbone.fpn, backbone.body(x)
        inner = [conv(c) for conv, c in zip(fpn.inner_blocks, (c3, c4, c5), strict=True)]
        for level in (1, 0):
            size = inner[level].shape[2:]
            inner[level] = inner[level] + nn.functional.interpolate(inner[level + 1], size=size)
        levels = [conv(each) for conv, each in zip(fpn.layer_blocks, inner, strict=True)]
        levels.append(fpn.extra_blocks["p6"](levels[-1]))
        levels.append(fpn.extra_blocks["p7"](torch.relu(levels[-1])))
        found: list[Any] = [[], [], []]
        head: Any = self.head
        for number, level in enumerate(levels):
            of_classes = head.classification_head.conv(level)
            of_boxes = head.regression_head.conv(level)
            found[0].append(head.classification_head.cls_logits(of_classes))
            raw = head.regression_head.bbox_reg(of_boxes)
            found[1].append(torch.relu(raw) * 8 * 2**number if self.norm else raw)
            if self.norm:
                found[2].append(head.regression_head.bbox_ctrness(of_boxes))
        return tuple(each.permute(0, 2, 3, 1) for part in found for each in part)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fcos", "retinanet"])
def test_outputs_are_those_of_pytorch(kind, randomised):
    """On a picture whose sides no stride divides; Faster R-CNN has the same pyramid."""
    images = np.random.default_rng(0).normal(size=(2, 75, 90, 3)).astype(np.float32)
    if kind == "fcos":
        model: Any = FCOS(**SMALL, convs=2, dialect="torchvision")
        theirs, names = Dense(4, 8, 3, 2, 1, True), fcos.torch_names(model)
    else:
        model = RetinaNet(**SMALL, convs=2)
        theirs, names = Dense(4, 8, 3, 2, 9, False), retinanet.torch_names(model)

    def outputs(variables, images):
        found = model.apply(variables, images)
        return found if kind == "fcos" else found[:2]

    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    arrays = {name: array.numpy() for name, array in randomised(theirs).state_dict().items()}
    borrowed = borrow(shapes, arrays, names)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images).permute(0, 3, 1, 2))
    found = jax.tree.leaves(jax.jit(outputs)(borrowed, images))
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, other.reshape(mine.shape), rtol=1e-4, atol=2e-4)


def test_every_layer_of_an_adder_is_one():
    """And each has a norm after it, but for those that predict; the paper's head stays float."""
    every: Any = {"arithmetic": ADDER, "first": ADDER, "classifier": ADDER}
    variables = _shapes(FCOS(**SMALL, **every, neck_kind="r-pafpn", shortcuts=True, convs=1))
    leaves = [path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(variables["params"])]
    assert "adder_kernel" in leaves and "kernel" not in leaves


@pytest.mark.slow
@pytest.mark.parametrize("kind", [FasterRCNN, RetinaNet])
def test_every_arithmetic(kind):
    every: Any = {"arithmetic": ADDER, "first": ADDER, "classifier": ADDER}
    variables = _shapes(kind(**SMALL, **every))
    leaves = [path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(variables["params"])]
    assert "adder_kernel" in leaves and "kernel" not in leaves


def test_names_that_torchvision_does_not_have():
    with pytest.raises(InputError, match='dialect "torchvision" alone'):
        fcos.torch_names(FCOS())
    with pytest.raises(InputError, match="names of an FPN of floats alone"):
        faster_rcnn.torch_names(FasterRCNN(neck_kind="pafpn"))
    with pytest.raises(InputError, match="neck is 'adder'"):
        FCOS(neck="adder")  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_fast_rcnn():
    """Its published count, and a step on given boxes of which one is an object's."""

    def shapes(model, p):
        some = (IMAGE, jax.ShapeDtypeStruct((1, p, 4), jnp.float32), np.ones((1, p), bool))
        return jax.eval_shape(model.init, jax.random.key(0), some)

    assert _count(shapes(FastRCNN(), 5)["params"]) == 134_690_729
    model = FastRCNN(3, widths=(2, 3, 4, 5, 6), hidden=8, sampled=6)
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 30, (2, 9, 2))
    proposals = np.concatenate([low, low + rng.uniform(10, 30, (2, 9, 2))], -1).astype(np.float32)
    objects = Boxes(
        proposals[:, :1] + 1, np.array([[1], [2]]), np.ones((2, 1), bool), np.zeros((2, 1), bool)
    )
    inputs = rng.normal(size=(2, 64, 64, 3)).astype(np.float32), proposals, np.ones((2, 9), bool)
    detector: Any = FastRCNNDetector((64, 64), least_score=0.0, count=5)
    optimizer = optax.sgd(0.1)
    state = training.init(jax.random.key(0), model, optimizer, inputs)
    measures: Any = {"loss": total_loss(detector), "metrics": loss_parts(detector)}
    step = jax.jit(training.train_step(model, optimizer, **measures))
    after, metrics = step(state, ((*inputs, objects), objects))
    assert metrics["nonfinite"] == -1 and metrics["classes_loss"] > 0 and metrics["boxes_loss"] > 0
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, after.params)
    assert all(jax.tree.leaves(moved["roi"]))
    found = detector.detect(model.apply({"params": after.params}, inputs))
    assert found.boxes.shape == (2, 5, 4) and found.mask.any()
