"""Fast R-CNN: what is in each of the boxes that one is given, from one pass over the image.

The convolutions of VGG-16 without the last maximum; 7×7 features of each box by RoI pooling; two
dense layers of 4,096 with dropout; logits of the classes and of background, and a code of the box
for each class. The boxes come from elsewhere, such as
`nnlab.vision.detection.selective_search`. With 20 classes there are 134,690,729 parameters.

References:
    Girshick, Fast R-CNN, ICCV 2015, https://arxiv.org/abs/1504.08083, and its code: 64 boxes of an
    image, a quarter of them with an object, the others of an IoU from 0.1 to 0.5; NMS at 0.3.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from numpy.typing import ArrayLike

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.networks import Network
from nnlab.vision.detection.boxes import check_boxes
from nnlab.vision.detection.regions import roi_pool
from nnlab.vision.detection.roi_head import (
    RegionDetector,
    RegionLoss,
    RoIHead,
    region_loss,
    sampled_proposals,
)
from nnlab.vision.vgg import VGGStages

_BINS, _STRIDE = 7, 16


class FastRCNNOutputs(NamedTuple):
    """What Fast R-CNN says of p boxes in each of n images.

    Attributes:
        proposals: [n, p, 4].
        there: bool [n, p], which of them are there.
        logits: of background and the classes, [n, p, classes + 1].
        codes: [n, p, classes + 1, 4].
    """

    proposals: jax.Array
    there: jax.Array
    logits: jax.Array
    codes: jax.Array


class FastRCNN(Network):
    """Map images and boxes in them to `FastRCNNOutputs`.

    The input is (images [n, height, width, channels], boxes [n, p, 4], mask [n, p]), and in
    training `nnlab.vision.datasets.labelled.Boxes` as a fourth: then `sampled` boxes of an image
    count, drawn from the stream "dropout", with the objects among them.

    All layers use `arithmetic`, except the first convolution and those that predict, which use
    `first` and `classifier` (float by default). `depth`, `widths` and `norm` are those of
    `nnlab.vision.vgg.VGG`, where `norm` is by default what the arithmetic needs.
    """

    classes: int = 20
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    depth: int = 16
    widths: tuple[int, int, int, int, int] = (64, 128, 256, 512, 512)
    hidden: int = 4096
    dropout: float = 0.5
    sampled: int = 64
    norm: bool | None = None
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> FastRCNNOutputs:
        images, proposals, there, *objects = inputs
        if train and objects:
            boxes = jnp.asarray(objects[0].boxes), jnp.asarray(objects[0].mask)
            proposals, there = sampled_proposals(
                *(self.make_rng("dropout"), jnp.asarray(proposals), jnp.asarray(there), *boxes),
                size=self.sampled,
                background=(0.1, 0.5),
            )
        x = VGGStages(
            *(self.depth, 1, self.arithmetic, self.first),
            widths=self.widths,
            norm=self.arithmetic.needs_norm if self.norm is None else self.norm,
            dtype=self.dtype,
            axis_name=self.axis_name,
            name="body",
        )(images, train)
        x = jax.vmap(lambda image, boxes: roi_pool(image, boxes, _BINS, 1 / _STRIDE))(x, proposals)
        head = RoIHead(
            *(self.classes, self.hidden, self.arithmetic, self.classifier, self.dropout),
            dtype=self.dtype,
            name="roi",
        )
        return FastRCNNOutputs(proposals, there, *head(x, train))


@dataclasses.dataclass(frozen=True)
class FastRCNNDetector(RegionDetector):
    """What the outputs of a `FastRCNN` mean, for images of one size."""

    threshold: float = 0.3

    def loss(
        self, outputs: FastRCNNOutputs, boxes: ArrayLike, classes: ArrayLike, mask: ArrayLike
    ) -> RegionLoss:
        """Return the parts of the loss of each image; arguments as for a `Detector`."""
        boxes, mask = check_boxes("boxes", boxes, 3), jnp.asarray(mask)
        said = outputs.logits, outputs.codes, outputs.proposals, outputs.there
        return region_loss(*said, boxes, jnp.asarray(classes), mask, beta=1.0)
