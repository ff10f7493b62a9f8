r"""R-CNN: a network's features of warped boxes, linear SVMs, and ridge regression of boxes.

Boxes come from selective search. Each is warped to the network's input with some context around
it. An SVM for each class is trained on its features: the objects are positive, boxes of IoU below
0.3 with all objects of the class negative, of which only the hard ones stay:

.. math::
    \min_w \tfrac{1}{2} |w|^2 + C \sum_i \max(0, 1 - y_i (w x_i + b))^2.        (1)

The published SVMs have a loss without the square; with it Newton's method ends after a few steps.
For each class, codes t of boxes (`nnlab.vision.detection.encode`) are regressed on the features of
boxes whose IoU with an object is above 0.6:

.. math:: W = (X^T X + \lambda I)^{-1} X^T t, \quad \lambda = 1000.             (2)

References:
    Girshick et al., Rich feature hierarchies, CVPR 2014, https://arxiv.org/abs/1311.2524, sections
    2 and 3.5, appendices A to C. With `original_alexnet(21)` the network has 56,954,261 parameters.
    Keerthi and DeCoste, A modified finite Newton method, JMLR 2005, for (1).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import ArrayLike

from nnlab.errors import InputError
from nnlab.vision.detection.boxes import check_boxes, clip
from nnlab.vision.detection.coding import decode, encode
from nnlab.vision.detection.detectors import Detections, best_boxes
from nnlab.vision.detection.found import Truth, overlaps


def warped(
    image: jax.Array, boxes: ArrayLike, size: int = 227, context: int = 16, fill: float = 0.0
) -> jax.Array:
    """Cut boxes out of an image, each brought to a square, whatever its shape.

    Args:
        image: [height, width, channels], floating.
        boxes: [n, 4] in pixels.
        size: side of the results in pixels.
        context: pixels of the result around the box, on each side.
        fill: what is outside of the image; 0 where the mean has been taken off.

    Returns:
        [n, size, size, channels], bilinearly interpolated.

    Raises:
        InputError: the boxes are not [n, 4], or the context leaves nothing of them.
    """
    boxes = check_boxes("boxes", boxes, 2)
    inner = size - 2 * context
    if inner < 1 or context < 0:
        raise InputError(f"context is {context}, expected 0 to {(size - 1) // 2} for size {size}.")

    def one(box):
        low, side = box[:2], jnp.maximum(box[2:] - box[:2], 1) / inner
        place = (jnp.arange(size) + 0.5 - context)[:, None] * side + low - 0.5  # of (x, y)
        rows, columns = (_interpolation(place[:, axis], image.shape[1 - axis]) for axis in (1, 0))
        cut = jnp.einsum("or,rwc->owc", rows, image - fill)
        return jnp.einsum("pw,owc->opc", columns, cut) + fill

    return lax.map(one, boxes)


def _interpolation(at: jax.Array, pixels: int) -> jax.Array:
    """Return the weights [n, pixels] of an axis; a point half a pixel outside has half of them."""
    return jnp.maximum(1 - jnp.abs(at[:, None] - jnp.arange(pixels)[None]), 0)


class SVM(NamedTuple):
    """Scores of features x: x @ weights + bias.

    Attributes:
        weights: float64 [features].
        bias: a number.
    """

    weights: np.ndarray
    bias: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x @ self.weights + self.bias


def fit_svm(x: ArrayLike, positive: ArrayLike, cost: float = 1e-3, steps: int = 50) -> SVM:
    """Minimise (1) by Newton's method.

    Args:
        x: features [n, features].
        positive: bool [n].
        cost: C.
        steps: at most.

    Raises:
        InputError: the arrays do not fit, or one kind has no example.
    """
    x, positive = np.asarray(x, np.float64), np.asarray(positive, bool)
    if x.ndim != 2 or positive.shape != (len(x),):
        raise InputError(
            f"x has shape {list(x.shape)} and positive {list(positive.shape)}, expected "
            "[n, features] and [n]."
        )
    if positive.all() or not positive.any():
        raise InputError("all examples are of one kind, expected positive and negative ones.")
    sign = np.where(positive, 1.0, -1.0)
    wide = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    keep = np.append(np.ones(x.shape[1]), 1e-6)  # the bias is all but free

    def value(w):
        return 0.5 * (keep * w) @ w + cost * (np.maximum(1 - sign * (wide @ w), 0) ** 2).sum()

    w = np.zeros(wide.shape[1])
    for _ in range(steps):
        active = sign * (wide @ w) < 1
        some = wide[active]
        hessian = np.diag(keep) + 2 * cost * some.T @ some
        move = np.linalg.solve(hessian, 2 * cost * some.T @ sign[active]) - w
        rate, now = 1.0, value(w)
        while value(w + rate * move) > now and rate > 1e-6:
            rate /= 2
        w = w + rate * move
        if now - value(w) <= 1e-12 * max(now, 1.0):
            break
    return SVM(w[:-1], float(w[-1]))


def mine_svm(
    positives: np.ndarray,
    negatives: Sequence[np.ndarray],
    cost: float = 1e-3,
    *,
    passes: int = 2,
    room: int = 20_000,
) -> SVM:
    """Fit an SVM with hard negatives, which are found image by image.

    Args:
        positives: features [n, features].
        negatives: features of the negative boxes of each image.
        cost: C of (1).
        passes: how often all images are looked at; one in which nothing is hard is the last.
        room: how many negatives are kept, at most, the hardest.

    Raises:
        InputError: as for `fit_svm`.
    """
    kept = negatives[0][:0]
    svm: SVM | None = None
    for _ in range(passes):
        new = 0
        for some in negatives:
            hard = some if svm is None else some[svm(some) > -1]
            if svm is not None and len(kept) and len(hard):
                known = {row.tobytes() for row in kept}
                hard = hard[[row.tobytes() not in known for row in hard]]
            if not len(hard):
                continue
            new += len(hard)
            kept = np.concatenate([kept, hard])
            x = np.concatenate([positives, kept])
            svm = fit_svm(x, np.arange(len(x)) < len(positives), cost)
            kept = kept[np.argsort(-svm(kept), kind="stable")]
            kept = kept[: max(int((svm(kept) > -1).sum()), 1)][:room]
        if not new:
            break
    if svm is None:
        raise InputError("there is no negative box, expected some.")
    return svm


def fit_boxes(x: ArrayLike, codes: ArrayLike, penalty: float = 1000.0) -> np.ndarray:
    """Return (2) for features [n, features] and codes [n, 4], with a free bias as its last row.

    The bias is the mean of the codes: features are regressed around their mean.
    """
    x, codes = np.asarray(x, np.float64), np.asarray(codes, np.float64)
    mean, base = x.mean(axis=0), codes.mean(axis=0)
    square = (x - mean).T @ (x - mean) + penalty * np.eye(x.shape[1])
    weights = np.linalg.solve(square, (x - mean).T @ (codes - base))
    return np.concatenate([weights, (base - mean @ weights)[None]])


class RCNN(NamedTuple):
    """What is learnt on top of features.

    Attributes:
        svms: of each class.
        regressions: of each class, float64 [features + 1, 4].
        scale: features are divided by it, so that their mean norm was 20 in training.
    """

    svms: list[SVM]
    regressions: list[np.ndarray]
    scale: float


Features = Callable[[np.ndarray, np.ndarray], np.ndarray]


def fit_rcnn(
    features: Features,
    images: Sequence[np.ndarray],
    proposals: Sequence[np.ndarray],
    truths: Sequence[Truth],
    classes: int,
    *,
    cost: float = 1e-3,
    penalty: float = 1000.0,
    negative: float = 0.3,
    near: float = 0.6,
) -> RCNN:
    """Fit SVMs and regressions of all classes.

    Args:
        features: from an image and boxes [n, 4] to [n, features], see `box_features`.
        images, proposals, truths: pictures, boxes [n, 4] in each, and its objects.
        classes: number of classes.
        cost, penalty: C of (1) and λ of (2).
        negative: a box is negative below this IoU with each object of the class.
        near: a box is regressed above this IoU with an object.

    Raises:
        InputError: a class has no object, or nothing is negative.
    """
    found = [features(*each) for each in zip(images, proposals, strict=True)]
    own = [features(image, truth.boxes) for image, truth in zip(images, truths, strict=True)]
    scale = float(np.linalg.norm(np.concatenate([*found, *own]), axis=1).mean()) / 20
    found, own = ([each / scale for each in some] for some in (found, own))
    svms, regressions = [], []
    for number in range(classes):
        of = [truth.classes == number for truth in truths]
        positives = np.concatenate([x[which] for x, which in zip(own, of, strict=True)])
        if not len(positives):
            raise InputError(f"class {number} has no object, expected some to learn it from.")
        negatives, inputs, codes = [], [positives], [np.zeros((len(positives), 4))]
        for x, boxes, truth, which in zip(found, proposals, truths, of, strict=True):
            shared = overlaps(np.asarray(boxes, float), truth.boxes[which])
            best = shared.max(axis=1, initial=0)
            negatives.append(x[best < negative])
            close = best > near
            if close.any():
                owner = truth.boxes[which][shared[close].argmax(axis=1)]
                inputs.append(x[close])
                codes.append(np.asarray(encode(owner, boxes[close])))
        svms.append(mine_svm(positives, negatives, cost))
        regressions.append(fit_boxes(np.concatenate(inputs), np.concatenate(codes), penalty))
    return RCNN(svms, regressions, scale)


def detect_rcnn(
    model: RCNN,
    features: Features,
    image: np.ndarray,
    proposals: np.ndarray,
    *,
    least_score: float = -1.0,
    threshold: float = 0.3,
    count: int = 100,
) -> Detections:
    """Return the best boxes of a picture, without an axis of images.

    Scores are those of the SVMs; `least_score`, `threshold` and `count` are those of
    `nnlab.vision.detection.best_boxes`, of boxes that are regressed first.
    """
    x = features(image, proposals) / model.scale
    wide = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    boxes, scores, kinds = [], [], []
    for number, (svm, weights) in enumerate(zip(model.svms, model.regressions, strict=True)):
        moved = decode(jnp.asarray(wide @ weights, jnp.float32), proposals)
        boxes.append(clip(moved, *image.shape[:2]))
        scores.append(svm(x))
        kinds.append(np.full(len(x), number))
    found = (np.concatenate(each) for each in (boxes, scores, kinds))
    boxes, scores, kinds = found
    options: Any = {"least_score": least_score, "threshold": threshold, "count": count}
    return best_boxes(boxes, scores.astype(np.float32), kinds, candidates=len(boxes), **options)


def box_features(
    apply: Callable[[jax.Array], jax.Array],
    *,
    size: int = 227,
    context: int = 16,
    batch_size: int = 64,
) -> Features:
    """Return a function from an image and boxes to features, in batches of one compiled program.

    Args:
        apply: from images [n, size, size, channels] to features [n, …].
        size, context: see `warped`.
        batch_size: boxes at a time; the last batch is filled.
    """

    @jax.jit
    def program(image, boxes):
        found = apply(warped(image, boxes, size, context))
        return found.reshape(len(boxes), -1)

    def features(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        filled = -(-max(len(boxes), 1) // batch_size) * batch_size
        padded = np.concatenate([boxes, np.tile([[0, 0, 1, 1]], (filled - len(boxes), 1))])
        parts = np.split(padded.astype(np.float32), filled // batch_size)
        found = [np.asarray(program(jnp.asarray(image), part)) for part in parts]
        return np.concatenate(found)[: len(boxes)]

    return features
