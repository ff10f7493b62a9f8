"""RetinaNet: nine anchors at every position of a feature pyramid, and the focal loss.

Two towers of four 3×3 convolutions, shared by levels P3 to P7, give each anchor a logit a class
and a code of its box. An anchor learns the object that it overlaps by half, and none below 0.4; the
loss of an image is divided by the number of its anchors that have an object.

With 91 classes and ResNet-50 there are 34,068,119 parameters, or 34,014,999 with frozen BatchNorm,
the head of 91 classes having 6,691,415.

References:
    Lin et al., Focal loss for dense object detection, ICCV 2017, https://arxiv.org/abs/1708.02002.
    torchvision (retinanet.py), whose weights give the same outputs here (`torch_names`).
"""

import dataclasses
import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from numpy.typing import ArrayLike

from nnlab.files.borrowing import Place, names_of
from nnlab.vision.detection.anchors import RATIOS, RETINA_SIZES, pyramid_anchors
from nnlab.vision.detection.boxes import check_boxes, clip, pairwise
from nnlab.vision.detection.coding import decode, encode
from nnlab.vision.detection.detectors import Detections, best_boxes
from nnlab.vision.detection.heads import Predicted, Tower, flattened, predicted_names, tower_names
from nnlab.vision.detection.losses import FOCAL_BIAS
from nnlab.vision.detection.matching import IGNORE, match
from nnlab.vision.detection.pyramid_networks import PyramidNetwork


class RetinaNetOutputs(NamedTuple):
    """What RetinaNet predicts at each level, the finest first.

    Attributes:
        logits: of classes, [n, a, classes] for the a anchors of the level.
        codes: of boxes, [n, a, 4].
        anchors: [n, a, 4], the same of each image.
    """

    logits: list[jax.Array]
    codes: list[jax.Array]
    anchors: list[jax.Array]


class RetinaNet(PyramidNetwork):
    """Map images [batch, height, width, channels] to `RetinaNetOutputs` of levels P3 to P7.

    `anchor_sizes` and `ratios` are those of `nnlab.vision.detection.pyramid_anchors`. Where the
    head's arithmetic needs a normalisation, GroupNorm follows the convolutions of its towers. Other
    fields are those of `nnlab.vision.detection.pyramid_networks.PyramidNetwork`.

    Intermediates: "p3" to "p7".
    """

    convs: int = 4
    anchor_sizes: tuple[tuple[float, ...], ...] = RETINA_SIZES
    ratios: tuple[float, ...] = RATIOS

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> RetinaNetOutputs:
        levels = self._pyramid(x, train, 1, "convolutions")
        shape, *grids = [(each.shape[1], each.shape[2]) for each in (x, *levels)]
        anchors = pyramid_anchors(shape, grids, self.anchor_sizes, self.ratios)
        count = len(self.anchor_sizes[0]) * len(self.ratios)
        head = self._head()
        tower = functools.partial(Tower, head, self.neck_features, self.convs, dtype=self.dtype)
        tower = functools.partial(tower, groups=32 if head.needs_norm else 0)
        last = functools.partial(Predicted, self.classifier, dtype=self.dtype)
        towers = tower(name="class_tower"), tower(name="box_tower")
        logits = last(count * self.classes, bias=FOCAL_BIAS, name="logits")
        codes = last(count * 4, name="codes")
        return RetinaNetOutputs(
            [flattened(logits(towers[0](each)), self.classes) for each in levels],
            [flattened(codes(towers[1](each)), 4) for each in levels],
            [jnp.tile(each[None], (len(x), 1, 1)) for each in anchors],
        )


class RetinaNetLoss(NamedTuple):
    """The parts of the loss of each image, [n]: the focal loss, and L1 of codes."""

    classes: jax.Array
    boxes: jax.Array


@dataclasses.dataclass(frozen=True)
class RetinaNetDetector:
    """What the outputs of a `RetinaNet` mean, for images of one size.

    Attributes:
        image_shape: height and width in pixels.
        foreground, background: see `nnlab.vision.detection.match`.
        least_score, threshold, count: see `nnlab.vision.detection.best_boxes`.
        candidates: boxes of a level that are looked at, at most.
    """

    image_shape: tuple[int, int]
    foreground: float = 0.5
    background: float = 0.4
    least_score: float = 0.05
    threshold: float = 0.5
    candidates: int = 1000
    count: int = 300

    def loss(
        self, outputs: RetinaNetOutputs, boxes: ArrayLike, classes: ArrayLike, mask: ArrayLike
    ) -> RetinaNetLoss:
        """Return the parts of the loss of each image; arguments as for a `Detector`."""
        boxes, classes = check_boxes("boxes", boxes, 3), jnp.asarray(classes)

        def one(logits, codes, anchors, boxes, classes, mask):
            overlaps = pairwise(boxes, anchors)
            matches = match(overlaps, self.foreground, self.background, force=True, mask=mask)
            positive = matches >= 0
            if not len(boxes):
                boxes, classes = jnp.zeros((1, 4), boxes.dtype), jnp.zeros(1, int)
            owner = matches.clip(0)
            kinds = jnp.where(positive, classes[owner], -1)
            wanted = jax.nn.one_hot(kinds, logits.shape[-1], dtype=logits.dtype)
            focal = optax.sigmoid_focal_loss(logits, wanted, alpha=0.25, gamma=2.0).sum(-1)
            apart = jnp.abs(codes - encode(boxes[owner], anchors)).sum(-1)
            count = jnp.maximum(positive.sum(), 1)
            return RetinaNetLoss(
                jnp.where(matches != IGNORE, focal, 0).sum() / count,
                jnp.where(positive, apart, 0).sum() / count,
            )

        logits, codes, anchors = (jnp.concatenate(each, axis=1) for each in outputs)
        return jax.vmap(one)(logits, codes, anchors, boxes, classes, jnp.asarray(mask))

    def detect(self, outputs: RetinaNetOutputs) -> Detections:
        """Return the best boxes of each image."""

        def one(levels):
            boxes, scores, kinds = [], [], []
            for logits, codes, anchors in levels:
                some = min(self.candidates, logits.size)
                score, place = jax.lax.top_k(logits.ravel(), some)
                anchor, kind = jnp.divmod(place, logits.shape[-1])
                found = decode(codes[anchor], anchors[anchor])
                boxes.append(clip(found, *self.image_shape))
                scores.append(jax.nn.sigmoid(score))
                kinds.append(kind)
            found = [jnp.concatenate(each) for each in (boxes, scores, kinds)]
            options = {"least_score": self.least_score, "threshold": self.threshold}
            return best_boxes(*found, **options, candidates=len(found[0]), count=self.count)

        return jax.vmap(one)(list(zip(*outputs, strict=True)))


@names_of(RetinaNet)
def torch_names(model: RetinaNet) -> dict[str, Place]:
    """Return torchvision's name of every layer, for `nnlab.files.borrow`."""
    names: dict[str, Place] = dict(model._pyramid_names(1, "convolutions"))
    for here, there, last in (
        ("class_tower", "classification", ("logits", "cls_logits")),
        ("box_tower", "regression", ("codes", "bbox_reg")),
    ):
        place = f"head.{there}_head"
        names |= tower_names(here, f"{place}.conv", model.convs, norm=False, nested=True)
        names |= predicted_names(last[0], f"{place}.{last[1]}")
    return names


retinanet_resnet50_fpn = functools.partial(RetinaNet, 91)
