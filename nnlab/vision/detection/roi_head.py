"""The second stage of a detector: what is in a proposal, and how its box must move.

The features of a region go through two dense layers to logits of the classes, background first,
and to a code of the box for each class. In training a sample of the proposals counts, with the
objects themselves among them.

References:
    Girshick, Fast R-CNN, ICCV 2015, https://arxiv.org/abs/1504.08083, section 2.
    torchvision (roi_heads.py): 512 proposals of an image, a quarter of them with an object.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.layers.normalization import group_norm
from nnlab.vision.detection.boxes import clip, pairwise
from nnlab.vision.detection.coding import WEIGHTS, Weights, decode, encode
from nnlab.vision.detection.detectors import Detections, best_boxes
from nnlab.vision.detection.losses import smooth_l1
from nnlab.vision.detection.matching import BACKGROUND, IGNORE, match, sample

_SMALLEST = 1e-2  # side of a detection, in pixels


class RoIHead(nn.Module):
    """Map regions [..., height, width, channels] to logits [..., classes + 1] and codes [..., 4].

    Codes are [..., classes + 1, 4]; background, the first class, has one that means nothing. The
    two dense layers have `hidden` units and dropout of rate `dropout`; where the arithmetic needs a
    normalisation, GroupNorm follows them.
    """

    classes: int
    hidden: int = 1024
    arithmetic: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    dropout: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        x = x.reshape(*x.shape[:-3], -1)
        for name in ("fc6", "fc7"):
            x = self.arithmetic.dense(self.hidden, use_bias=True, dtype=self.dtype, name=name)(x)
            if self.arithmetic.needs_norm:
                flat = x.reshape(-1, x.shape[-1])  # every region by itself
                x = group_norm(32, self.dtype, name=f"{name}_norm")(flat).reshape(x.shape)
            x = self.arithmetic.activation(x)
            if self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not train, name=f"{name}_dropout")(x)
        found = []
        for name, size, spread in (("logits", 1, 0.01), ("codes", 4, 0.001)):
            options: Any = {"use_bias": True, "dtype": self.dtype, "name": name}
            if not self.classifier.needs_norm:  # as published
                options["kernel_init"] = nn.initializers.normal(spread)
            y = self.classifier.dense(size * (self.classes + 1), **options)(x)
            found.append(y.astype(jnp.promote_types(y.dtype, jnp.float32)))
        logits, codes = found
        return logits, codes.reshape(*logits.shape, 4)


def sampled_proposals(
    key: jax.Array,
    proposals: jax.Array,
    there: jax.Array,
    boxes: jax.Array,
    mask: jax.Array,
    *,
    size: int = 512,
    positive_share: float = 0.25,
    foreground: float = 0.5,
    background: tuple[float, float] = (0.0, 0.5),
) -> tuple[jax.Array, jax.Array]:
    """Draw the proposals that a training step looks at, of n images.

    Args:
        key: draws them.
        proposals, there: from `propose`, [n, p, 4] and bool [n, p].
        boxes, mask: objects [n, most, 4], which are proposals too, and bool [n, most].
        size: how many of an image.
        positive_share: the largest part of them that has an object.
        foreground: the least IoU of those with an object.
        background: least and largest IoU of those without; Fast R-CNN has (0.1, 0.5).

    Returns:
        Boxes [n, size, 4] and a mask, bool [n, size], those with an object first.
    """

    def one(key, proposals, there, boxes, mask):
        all_boxes = jnp.concatenate([proposals, boxes])
        overlaps = jnp.where(mask[:, None], pairwise(boxes, all_boxes), 0)
        matches = match(overlaps, foreground, background[1], mask=mask)
        best = overlaps.max(axis=0, initial=0)
        matches = jnp.where((matches == BACKGROUND) & (best < background[0]), IGNORE, matches)
        matches = jnp.where(jnp.concatenate([there, mask]), matches, IGNORE)
        some = sample(key, matches, size, positive_share)
        return jnp.where(some.mask[:, None], all_boxes[some.indices], 0), some.mask

    keys = jax.random.split(key, len(boxes))
    return jax.vmap(one)(keys, proposals, there, boxes, mask)


class RegionLoss(NamedTuple):
    """The parts of the second stage's loss of each image, [n]: their mean is that of the batch."""

    classes: jax.Array
    boxes: jax.Array


def region_loss(
    logits: jax.Array,
    codes: jax.Array,
    proposals: jax.Array,
    there: jax.Array,
    boxes: jax.Array,
    classes: jax.Array,
    mask: jax.Array,
    *,
    foreground: float = 0.5,
    weights: Weights = WEIGHTS,
    beta: float = 1 / 9,
) -> RegionLoss:
    """Return the loss of what `RoIHead` says of proposals.

    Args:
        logits, codes: [n, p, classes + 1] and [n, p, classes + 1, 4].
        proposals, there: from `sampled_proposals`.
        boxes, classes, mask: objects [n, most, 4], [n, most] and bool [n, most].
        foreground: the least IoU of a proposal with an object.
        weights: of codes, see `nnlab.vision.detection.encode`.
        beta: of the smooth L1 loss of codes.
    """

    def one(logits, codes, proposals, there, boxes, classes, mask):
        matches = match(pairwise(boxes, proposals), foreground, mask=mask)
        positive = (matches >= 0) & there
        if not len(boxes):
            boxes, classes = jnp.zeros((1, 4), boxes.dtype), jnp.zeros(1, int)
        owner = matches.clip(0)
        kinds = jnp.where(positive, classes[owner] + 1, 0)
        wrong = optax.softmax_cross_entropy_with_integer_labels(logits, kinds)
        chosen = jnp.take_along_axis(codes, kinds[:, None, None], axis=1)[:, 0]
        wanted = encode(boxes[owner], proposals, weights)
        apart = smooth_l1(chosen - wanted, beta).sum(-1)
        losses = (wrong, there), (apart, positive)
        return tuple(jnp.where(which, each, 0).sum() for each, which in losses)

    arrays = proposals, there, boxes, jnp.asarray(classes), mask
    wrong, apart = jax.vmap(one)(logits, codes, *arrays)
    share = len(boxes) / jnp.maximum(there.sum(), 1)
    return RegionLoss(wrong * share, apart * share)


def detected_regions(
    logits: jax.Array,
    codes: jax.Array,
    proposals: jax.Array,
    there: jax.Array,
    image_shape: tuple[int, int],
    *,
    weights: Weights = WEIGHTS,
    least_score: float = 0.05,
    threshold: float = 0.5,
    candidates: int = 10_000,
    count: int = 100,
) -> Detections:
    """Return the best boxes of n images.

    Args:
        logits, codes, proposals, there, weights: as for `region_loss`.
        image_shape: height and width in pixels.
        least_score, threshold, candidates, count: see `nnlab.vision.detection.best_boxes`.
    """

    def one(logits, codes, proposals, there):
        boxes = clip(decode(codes[:, 1:], proposals[:, None], weights), *image_shape)
        scores = jax.nn.softmax(logits)[:, 1:]
        good = there[:, None] & (boxes[..., 2:] - boxes[..., :2] >= _SMALLEST).all(-1)
        kinds = jnp.broadcast_to(jnp.arange(scores.shape[1]), scores.shape)
        options: Any = {"least_score": least_score, "threshold": threshold, "count": count}
        options["candidates"] = candidates
        found = boxes.reshape(-1, 4), jnp.where(good, scores, 0).ravel(), kinds.ravel()
        return best_boxes(*found, **options)

    return jax.vmap(one)(logits, codes, proposals, there)


@dataclasses.dataclass(frozen=True)
class RegionDetector:
    """What a second stage's outputs mean, for images of one size; a loss is added by its kinds.

    Attributes:
        image_shape: height and width in pixels.
        least_score, threshold, candidates, count: see `nnlab.vision.detection.best_boxes`.
    """

    image_shape: tuple[int, int]
    least_score: float = 0.05
    threshold: float = 0.5
    candidates: int = 10_000
    count: int = 100

    def detect(self, outputs: Any) -> Detections:
        """Return the best boxes of each image, by logits, codes, proposals and `there`."""
        given = outputs.logits, outputs.codes, outputs.proposals, outputs.there
        options = dataclasses.asdict(self)
        return detected_regions(*given, options.pop("image_shape"), **options)
