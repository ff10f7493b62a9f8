"""The first stage of a detector: which anchors may hold an object, and the loss of that.

A 3×3 convolution and two 1×1 convolutions, shared by all levels, give each anchor an objectness
and a code of its box. Of each level those of the highest objectness are decoded, cut off at the
border and freed of overlaps; the best of all levels are the proposals. In the loss 256 anchors of
an image count, at most half of them with an object.

References:
    Ren et al., Faster R-CNN, NeurIPS 2015, https://arxiv.org/abs/1506.01497, section 3.1.
    Wu and He, Group normalization, ECCV 2018, https://arxiv.org/abs/1803.08494, for the norm that
    an arithmetic may need. torchvision (rpn.py).
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.typing import Dtype
from jax import lax
from numpy.typing import ArrayLike

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.vision.detection.boxes import clip, pairwise
from nnlab.vision.detection.coding import decode, encode
from nnlab.vision.detection.heads import Predicted, Tower, flattened
from nnlab.vision.detection.losses import smooth_l1
from nnlab.vision.detection.matching import match, sample
from nnlab.vision.detection.suppression import nms

BETA = 1 / 9  # of the smooth L1 loss of codes
_SMALLEST = 1e-3  # side of a proposal, in pixels


class RPNHead(nn.Module):
    """Map levels [n, height, width, features] to objectness [n, a] and codes [n, a, 4] of each.

    There are `anchors` at a position and a = height · width · anchors. Where the arithmetic needs a
    normalisation, GroupNorm follows the 3×3 convolution.
    """

    anchors: int = 3
    features: int = 256
    arithmetic: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array]) -> list[tuple[jax.Array, jax.Array]]:
        groups = 32 if self.arithmetic.needs_norm else 0
        tower = Tower(self.arithmetic, self.features, 1, groups, self.dtype, name="tower")
        predict = [
            Predicted(self.classifier, self.anchors * size, 1, dtype=self.dtype, name=name)
            for name, size in (("objectness", 1), ("codes", 4))
        ]
        found = []
        for level in levels:
            x = tower(level)
            objectness, codes = (each(x) for each in predict)
            found.append((flattened(objectness, 1)[..., 0], flattened(codes, 4)))
        return found


def propose(
    levels: Sequence[tuple[jax.Array, jax.Array]],
    anchors: Sequence[ArrayLike],
    image_shape: tuple[int, int],
    before: int = 1000,
    after: int = 1000,
    threshold: float = 0.7,
) -> tuple[jax.Array, jax.Array]:
    """Return the proposals of n images, and which of them are there.

    Args:
        levels: objectness [n, a] and codes [n, a, 4] of the anchors of each.
        anchors: of each level, [a, 4].
        image_shape: height and width in pixels.
        before: how many of a level are decoded, at most.
        after: how many of all levels are proposed, at most.
        threshold: the largest IoU of two proposals of a level.

    Returns:
        Boxes [n, after, 4], without a derivative, and a mask, bool [n, after].
    """
    levels = lax.stop_gradient(list(levels))

    def one(levels):
        boxes, scores, numbers = [], [], []
        for number, ((score, codes), base) in enumerate(zip(levels, anchors, strict=True)):
            score, best = lax.top_k(score, min(before, len(score)))
            boxes.append(clip(decode(codes[best], jnp.asarray(base)[best]), *image_shape))
            scores.append(score)
            numbers.append(jnp.full(len(score), number))
        boxes, scores, numbers = (jnp.concatenate(each) for each in (boxes, scores, numbers))
        there = (boxes[:, 2:] - boxes[:, :2] >= _SMALLEST).all(-1)
        kept = nms(boxes, scores, threshold, classes=numbers, mask=there, count=after)
        return jnp.where(kept.mask[:, None], boxes[kept.indices], 0), kept.mask

    return jax.vmap(one)(levels)


class ProposalLoss(NamedTuple):
    """The parts of the first stage's loss of each image, [n]: their mean is that of the batch."""

    objectness: jax.Array
    proposals: jax.Array


def proposal_loss(
    keys: jax.Array,
    objectness: jax.Array,
    codes: jax.Array,
    anchors: jax.Array,
    boxes: jax.Array,
    mask: jax.Array,
    *,
    foreground: float = 0.7,
    background: float = 0.3,
    size: int = 256,
) -> ProposalLoss:
    """Return the loss of objectness and codes.

    Args:
        keys: [n], draw the anchors that count.
        objectness: logits, [n, a].
        codes: [n, a, 4].
        anchors: [n, a, 4].
        boxes: objects, [n, most, 4].
        mask: bool [n, most], which of them are there.
        foreground, background: see `match`; the best anchors of each object are positive, too.
        size: how many anchors of an image count.
    """

    def one(key, logits, codes, anchors, boxes, mask):
        matches = match(pairwise(boxes, anchors), foreground, background, force=True, mask=mask)
        some = sample(key, matches, size)
        wrong = optax.sigmoid_binary_cross_entropy(logits[some.indices], some.positive * 1.0)
        owner = matches[some.indices].clip(0)
        wanted = encode(boxes[owner], anchors[some.indices])
        apart = smooth_l1(codes[some.indices] - wanted, BETA).sum(-1)
        losses = (wrong, some.mask), (apart, some.positive)
        return *(jnp.where(there, each, 0).sum() for each, there in losses), some.mask.sum()

    wrong, apart, count = jax.vmap(one)(keys, objectness, codes, anchors, boxes, mask)
    share = len(boxes) / jnp.maximum(count.sum(), 1)
    return ProposalLoss(wrong * share, apart * share)
