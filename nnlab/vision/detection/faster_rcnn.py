"""Faster R-CNN on a feature pyramid: proposals, and what is in each.

The first stage proposes boxes from the anchors of levels P2 to P6 (`proposals`), the second looks
at 7×7 features of each by RoIAlign on one of P2 to P5, by its size (`roi_head`). In training the
network takes the objects as well, for the second stage learns from a sample of proposals near to
them and far from them:

    outputs = model.apply(variables, (images, objects), train=True, rngs={"dropout": key}, …)

With 90 classes and ResNet-50 there are 41,808,406 parameters, or 41,755,286 with frozen BatchNorm,
with 20 classes 41,449,656.

References:
    Ren et al., Faster R-CNN, NeurIPS 2015, https://arxiv.org/abs/1506.01497.
    Lin et al., Feature pyramid networks, CVPR 2017, https://arxiv.org/abs/1612.03144, section 4.
    torchvision (faster_rcnn.py), whose weights give the same outputs here (`torch_names`).
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from nnlab.files.borrowing import Flattened, Place, names_of
from nnlab.vision.detection.anchors import PYRAMID_SIZES, RATIOS, pyramid_anchors
from nnlab.vision.detection.boxes import check_boxes
from nnlab.vision.detection.heads import predicted_names, tower_names
from nnlab.vision.detection.proposals import RPNHead, proposal_loss, propose
from nnlab.vision.detection.pyramid_networks import PyramidNetwork
from nnlab.vision.detection.regions import pyramid_level, roi_align
from nnlab.vision.detection.roi_head import (
    RegionDetector,
    RoIHead,
    region_loss,
    sampled_proposals,
)

_BINS = 7  # of a region, in each direction


class FasterRCNNOutputs(NamedTuple):
    """What Faster R-CNN says of n images, its a anchors and p proposals an image.

    Attributes:
        objectness: logits [n, a].
        anchor_codes: [n, a, 4].
        anchors: [n, a, 4], the same of each image.
        proposals: [n, p, 4].
        there: bool [n, p], which of them are there.
        logits: of background and the classes, [n, p, classes + 1].
        codes: [n, p, classes + 1, 4].
        keys: [n], draw the anchors that count in the loss.
    """

    objectness: jax.Array
    anchor_codes: jax.Array
    anchors: jax.Array
    proposals: jax.Array
    there: jax.Array
    logits: jax.Array
    codes: jax.Array
    keys: jax.Array


class FasterRCNN(PyramidNetwork):
    """Map images [batch, height, width, channels], and objects in training, to `FasterRCNNOutputs`.

    The input is an array of images, or a pair of it and `nnlab.vision.datasets.labelled.Boxes`.
    With objects and `train`, the proposals are the sample that the second stage learns from, drawn
    from the stream "dropout"; otherwise they are the best.

    `before_nms` and `after_nms` are numbers of proposals in training and otherwise, of a level and
    of all; `sampled` is the size of the sample, `hidden` that of the dense layers, and
    `anchor_sizes` and `ratios` are those of `nnlab.vision.detection.pyramid_anchors`. Other fields
    are those of `nnlab.vision.detection.pyramid_networks.PyramidNetwork`.

    Intermediates: "p2" to "p6".
    """

    hidden: int = 1024
    before_nms: tuple[int, int] = (2000, 1000)
    after_nms: tuple[int, int] = (2000, 1000)
    sampled: int = 512
    anchor_sizes: tuple[tuple[float, ...], ...] = PYRAMID_SIZES
    ratios: tuple[float, ...] = RATIOS

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> FasterRCNNOutputs:
        images, objects = inputs if isinstance(inputs, tuple | list) else (inputs, None)
        shape = images.shape[1:3]
        levels = self._pyramid(images, train, 0, "pool")
        head = self._head()
        count = len(self.anchor_sizes[0]) * len(self.ratios)
        found = RPNHead(count, self.neck_features, head, self.classifier, self.dtype, name="rpn")(
            levels
        )
        grids = [(each.shape[1], each.shape[2]) for each in levels]
        anchors = pyramid_anchors(shape, grids, self.anchor_sizes, self.ratios)
        which = 0 if train else 1
        limits = self.before_nms[which], self.after_nms[which]
        proposals, there = propose(found, anchors, shape, *limits)
        keys = jax.random.split(jax.random.key(0), len(images))
        if train and objects is not None:
            drawn, *keys = jax.random.split(self.make_rng("dropout"), len(images) + 1)
            keys = jnp.stack(keys)
            objects = jnp.asarray(objects.boxes), jnp.asarray(objects.mask)
            proposals, there = sampled_proposals(
                drawn, proposals, there, *objects, size=self.sampled
            )

        *levels, _ = levels
        scales = [1 / 2 ** (level + 2) for level in range(len(levels))]

        def regions(levels, boxes):
            level = pyramid_level(boxes, 2, len(levels) + 1) - 2
            return roi_align(levels, boxes, _BINS, scales, level=level)

        x = jax.vmap(regions)(levels, proposals)
        second = RoIHead(
            self.classes, self.hidden, head, self.classifier, dtype=self.dtype, name="roi"
        )
        objectness, codes = (jnp.concatenate(each, axis=1) for each in zip(*found, strict=True))
        all_anchors = jnp.concatenate([jnp.asarray(each) for each in anchors])
        first = objectness, codes, jnp.broadcast_to(all_anchors, codes.shape)
        return FasterRCNNOutputs(*first, proposals, there, *second(x, train), keys)


class FasterRCNNLoss(NamedTuple):
    """The parts of the loss of each image, [n]; their means over images are those of the batch.

    Attributes:
        objectness, proposals: of the first stage.
        classes, boxes: of the second.
    """

    objectness: jax.Array
    proposals: jax.Array
    classes: jax.Array
    boxes: jax.Array


@dataclasses.dataclass(frozen=True)
class FasterRCNNDetector(RegionDetector):
    """What the outputs of a `FasterRCNN` mean, for images of one size."""

    def loss(
        self, outputs: FasterRCNNOutputs, boxes: ArrayLike, classes: ArrayLike, mask: ArrayLike
    ) -> FasterRCNNLoss:
        """Return the parts of the loss of each image; arguments as for a `Detector`."""
        boxes, mask = check_boxes("boxes", boxes, 3), jnp.asarray(mask)
        first = outputs.keys, outputs.objectness, outputs.anchor_codes, outputs.anchors
        second = outputs.logits, outputs.codes, outputs.proposals, outputs.there
        return FasterRCNNLoss(
            *proposal_loss(*first, boxes, mask),
            *region_loss(*second, boxes, jnp.asarray(classes), mask),
        )


@names_of(FasterRCNN)
def torch_names(model: FasterRCNN) -> dict[str, Place]:
    """Return torchvision's name of every layer, for `nnlab.files.borrow`."""
    names: dict[str, Place] = dict(model._pyramid_names(0, "pool"))
    names |= tower_names("rpn/tower", "rpn.head.conv", 1, norm=False, nested=True)
    names |= predicted_names("rpn/objectness", "rpn.head.cls_logits")
    names |= predicted_names("rpn/codes", "rpn.head.bbox_pred")
    fc6 = Flattened("roi_heads.box_head.fc6", model.neck_features, _BINS, _BINS)
    return names | {
        "roi/fc6": fc6,
        "roi/fc7": "roi_heads.box_head.fc7",
        "roi/logits": "roi_heads.box_predictor.cls_score",
        "roi/codes": "roi_heads.box_predictor.bbox_pred",
    }


fasterrcnn_resnet50_fpn = functools.partial(FasterRCNN, 90)
