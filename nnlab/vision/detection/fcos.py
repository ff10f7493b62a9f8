r"""FCOS: every position of a feature pyramid predicts classes and the sides of its object's box.

Two towers of four 3×3 convolutions with GroupNorm, shared by all levels: one of classes, one of
the distances to the four sides. A further output says how near to the middle of its object a
position is. Two dialects are in use:

=============  ===========================================  ======================================
               paper and its code                           torchvision
=============  ===========================================  ======================================
distances      exp(a_l x), a learnt scale a_l for a level   relu(x) s, in strides s
centre-ness    beside the classes                           beside the distances
loss of boxes  −ln((I + 1) / (U + 1)), by centre-ness       1 − GIoU
score          p_c times centre-ness                        its square root
least score    0.05, of p_c                                 0.2, of the score
points         see `nnlab.vision.detection.fcos_matches`
=============  ===========================================  ======================================

The loss of classes is the focal loss (α 0.25, γ 2), that of centre-ness the binary cross-entropy.
All are sums over the batch by the number of positions that have an object, and in the paper that
of boxes by the sum of their centre-ness.

With 91 classes, ResNet-50 and torchvision's dialect there are 32,322,720 parameters, or 32,269,600
with frozen BatchNorm; the head of K classes has 4,736,261 + 2,305 K, and the paper's 5 more.

References:
    Tian et al., FCOS, ICCV 2019, https://arxiv.org/abs/1904.01355, and its code; torchvision
    (fcos.py), whose weights give the same outputs here (`torch_names`).
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from nnlab.errors import InputError
from nnlab.files.borrowing import Place, names_of
from nnlab.vision.detection.boxes import check_boxes, clip
from nnlab.vision.detection.coding import boxes_at, distances
from nnlab.vision.detection.detectors import Detections, best_boxes
from nnlab.vision.detection.fcos_targets import (
    RANGES,
    STRIDES,
    Dialect,
    fcos_matches,
    fcos_points,
)
from nnlab.vision.detection.heads import Predicted, Tower, flattened, predicted_names, tower_names
from nnlab.vision.detection.losses import FOCAL_BIAS, box_loss, centerness
from nnlab.vision.detection.pyramid_networks import PyramidNetwork

_START = math.log(32)  # of exponents, a distance of 32 pixels; published is 0, which is 1 pixel
_LIMIT = math.log(1e4)  # of exponents


class FCOSOutputs(NamedTuple):
    """What FCOS predicts at each level, the finest first.

    Attributes:
        logits: of classes, [n, height, width, classes].
        distances: to left, top, right and bottom in pixels, [n, height, width, 4].
        centers: logits of centre-ness, [n, height, width, 1].
    """

    logits: list[jax.Array]
    distances: list[jax.Array]
    centers: list[jax.Array]


class FCOS(PyramidNetwork):
    """Map images [batch, height, width, channels] to `FCOSOutputs` of levels P3 to P7.

    `dialect` and the head are explained above; the head's arithmetic is followed by GroupNorm of
    `groups` groups, at most as many as divide the width. Other fields are those of
    `nnlab.vision.detection.pyramid_networks.PyramidNetwork`.

    Intermediates: "p3" to "p7".
    """

    dialect: Dialect = "paper"
    convs: int = 4
    groups: int = 32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> FCOSOutputs:
        levels = self._pyramid(x, train, 1, "convolutions")
        tower = functools.partial(
            *(Tower, self._head(), self.neck_features, self.convs, self.groups, self.dtype)
        )
        last = functools.partial(Predicted, self.classifier, dtype=self.dtype)
        class_tower, box_tower = tower(name="class_tower"), tower(name="box_tower")
        logits = last(self.classes, bias=FOCAL_BIAS, name="logits")
        start = _START if self.dialect == "paper" else 0.0
        sides, center = last(4, bias=start, name="distances"), last(1, name="center")
        outputs = FCOSOutputs([], [], [])
        for number, (level, stride) in enumerate(zip(levels, STRIDES, strict=True)):
            of_classes, of_boxes = class_tower(level), box_tower(level)
            outputs.logits.append(logits(of_classes))
            raw = sides(of_boxes)
            if self.dialect == "paper":
                scale = self.param(f"scale{number}", nn.initializers.ones, (), jnp.float32)
                raw = jnp.exp(jnp.minimum(raw * scale, _LIMIT))
            else:
                raw = nn.relu(raw) * stride
            outputs.distances.append(raw)
            beside = of_classes if self.dialect == "paper" else of_boxes
            outputs.centers.append(center(beside))
        return outputs


class FCOSLoss(NamedTuple):
    """The parts of the loss of each image, [n]; their means over images are those of the batch.

    Attributes:
        classes: focal loss.
        boxes: of the sides.
        centers: of centre-ness.
    """

    classes: jax.Array
    boxes: jax.Array
    centers: jax.Array


@dataclasses.dataclass(frozen=True)
class FCOSDetector:
    """What the outputs of an `FCOS` mean, for images of one size.

    Attributes:
        image_shape: height and width in pixels.
        dialect: that of the network.
        strides, ranges, radius: see `fcos_matches`.
        least_score: 0.05 and 0.2 by default, by the dialect.
        threshold, count: see `best_boxes`.
        candidates: boxes of a level that are looked at, at most.
    """

    image_shape: tuple[int, int]
    dialect: Dialect = "paper"
    strides: Sequence[int] = STRIDES
    ranges: Sequence[tuple[float, float]] = RANGES
    radius: float = 1.5
    least_score: float | None = None
    threshold: float = 0.6
    candidates: int = 1000
    count: int = 100

    def _points(self, outputs: FCOSOutputs) -> list[np.ndarray]:
        shapes = ((level.shape[1], level.shape[2]) for level in outputs.logits)
        return [
            fcos_points(shape, stride, self.dialect)
            for shape, stride in zip(shapes, self.strides, strict=True)
        ]

    def loss(
        self, outputs: FCOSOutputs, boxes: ArrayLike, classes: ArrayLike, mask: ArrayLike
    ) -> FCOSLoss:
        """Return the parts of the loss of each image; arguments as for a `Detector`."""
        paper = self.dialect == "paper"
        points = self._points(outputs)
        boxes, classes = check_boxes("boxes", boxes, 3), jnp.asarray(classes)
        if not boxes.shape[1]:  # no object in any image: one that the mask leaves out
            boxes = jnp.zeros((len(boxes), 1, 4), boxes.dtype)
            classes, mask = jnp.zeros(boxes.shape[:2], int), jnp.zeros(boxes.shape[:2], bool)

        def owners(boxes, mask):
            options = {"strides": self.strides, "ranges": self.ranges, "radius": self.radius}
            matches = fcos_matches(points, boxes, mask, **options, dialect=self.dialect)
            return jnp.concatenate(matches)

        owner = jax.vmap(owners)(boxes, jnp.asarray(mask))
        positive = owner >= 0
        at = jnp.concatenate([jnp.asarray(each) for each in points])
        logits, sides, centers = (
            jnp.concatenate([flattened(level, level.shape[-1]) for level in each], axis=1)
            for each in outputs
        )
        kinds = jnp.where(positive, jnp.take_along_axis(classes, owner.clip(0), axis=1), -1)
        wanted = jax.nn.one_hot(kinds, logits.shape[-1], dtype=logits.dtype)
        focal = optax.sigmoid_focal_loss(logits, wanted, alpha=0.25, gamma=2.0).sum((1, 2))
        target = jnp.take_along_axis(boxes, owner.clip(0)[..., None], axis=1)
        near = jnp.where(positive, centerness(distances(at, target)), 0)
        loss = box_loss(boxes_at(at, sides), target, "log_iou" if paper else "giou")
        weight = near if paper else positive.astype(loss.dtype)
        centered = optax.sigmoid_binary_cross_entropy(centers[..., 0], near)
        images, count = len(boxes), jnp.maximum(positive.sum(), 1)
        total = jnp.maximum(near.sum(), 1e-6) if paper else count
        return FCOSLoss(
            focal * images / count,
            jnp.where(positive, loss * weight, 0).sum(1) * images / total,
            jnp.where(positive, centered, 0).sum(1) * images / count,
        )

    def detect(self, outputs: FCOSOutputs) -> Detections:
        """Return the best boxes of each image."""
        paper = self.dialect == "paper"
        least = self.least_score
        least = (0.05 if paper else 0.2) if least is None else least
        points = self._points(outputs)

        def one(outputs):
            boxes, scores, classes = [], [], []
            for at, *level in zip(points, *outputs, strict=True):
                logits, sides, centers = (each.reshape(len(at), -1) for each in level)
                share, near = jax.nn.sigmoid(logits), jax.nn.sigmoid(centers)
                score = share * near if paper else jnp.sqrt(share * near)
                score = jnp.where((share if paper else score) > least, score, 0)
                some = min(self.candidates, score.size)
                score, place = jax.lax.top_k(score.ravel(), some)
                point, kind = jnp.divmod(place, logits.shape[-1])
                found = boxes_at(jnp.asarray(at)[point], sides[point])
                boxes.append(clip(found, *self.image_shape))
                scores.append(score)
                classes.append(kind)
            found = [jnp.concatenate(each) for each in (boxes, scores, classes)]
            options = {"least_score": 0.0, "threshold": self.threshold, "count": self.count}
            return best_boxes(*found, candidates=len(found[0]), **options)

        return jax.vmap(one)(outputs)


@names_of(FCOS)
def torch_names(model: FCOS) -> dict[str, Place]:
    """Return torchvision's name of every layer, for `nnlab.files.borrow`.

    The paper's dialect has other heads, and torchvision no other neck than FPN.
    """
    if model.dialect != "torchvision":
        raise InputError('torchvision has names of dialect "torchvision" alone.')
    names: dict[str, Place] = dict(model._pyramid_names(1, "convolutions"))
    for here, there in (("class_tower", "classification"), ("box_tower", "regression")):
        names |= tower_names(here, f"head.{there}_head.conv", model.convs, norm=True)
    for here, there in (
        ("logits", "classification_head.cls_logits"),
        ("distances", "regression_head.bbox_reg"),
        ("center", "regression_head.bbox_ctrness"),
    ):
        names |= predicted_names(here, f"head.{there}")
    return names


fcos_resnet50_fpn = functools.partial(FCOS, 91, dialect="torchvision")
