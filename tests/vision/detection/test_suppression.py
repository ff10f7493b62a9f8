import functools

import jax
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.vision.detection.suppression import nms

BOXES = np.array(
    [
        [0, 0, 10, 10],
        [1, 1, 11, 11],
        [0, 0, 10, 5],
        [20, 20, 30, 30],
        [21, 21, 29, 29],
        [0, 0, 10, 10],
    ],
    np.float32,
)
SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.95, 0.9], np.float32)


@functools.cache
def _compiled(count):
    @jax.jit
    def run(boxes, scores, threshold, classes, mask):
        return nms(boxes, scores, threshold, classes=classes, mask=mask, count=count)

    return run


def _kept(boxes, scores, threshold, classes=None, mask=None, count=None):
    classes = np.zeros(len(boxes), np.int32) if classes is None else np.asarray(classes, np.int32)
    mask = np.ones(len(boxes), bool) if mask is None else mask
    kept = _compiled(count)(boxes, scores, threshold, classes, mask)
    number = int(kept.mask.sum())
    assert kept.mask[:number].all()
    return kept.indices[:number].tolist()


def _brute_force(boxes, scores, threshold, classes):
    """torchvision's loop over single boxes, by class."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        for j in kept:
            low, high = (
                np.maximum(boxes[i, :2], boxes[j, :2]),
                np.minimum(boxes[i, 2:], boxes[j, 2:]),
            )
            shared = np.maximum(high - low, 0).prod()
            if classes[i] == classes[j] and shared / (areas[i] + areas[j] - shared) > threshold:
                break
        else:
            kept.append(int(i))
    return kept


def test_golden():
    """An IoU of exactly the threshold is kept, and of equal scores the first."""
    assert _kept(BOXES, SCORES, 0.5) == [4, 0, 2]
    assert _kept(BOXES, SCORES, 0.7) == [4, 0, 1, 2, 3]
    assert _kept(BOXES, SCORES, 0.5, [0, 1, 0, 0, 0, 1]) == [4, 0, 5, 2]


def test_masks_and_counts():
    mask = np.array([True, True, True, True, False, True])
    assert _kept(BOXES, SCORES, 0.5, mask=mask) == [0, 2, 3]
    assert _kept(BOXES, SCORES, 0.5, mask=mask & False) == []
    assert _kept(BOXES, np.where(SCORES == 0.6, np.nan, SCORES), 0.5) == [4, 0, 2]
    assert nms(np.zeros((0, 4)), np.zeros(0), count=3).mask.tolist() == [False] * 3


def test_first_of_the_kept(many):
    boxes, scores, classes = many
    first = _kept(boxes, scores, 0.4, classes, count=7)
    assert first == _brute_force(boxes, scores, 0.4, classes)[:7]


@pytest.fixture(params=[20, 200])
def many(request):
    """300 boxes are three blocks; 20 pixels give long chains of boxes that suppress each other."""
    spread = request.param
    generator = np.random.default_rng(spread)
    corner = generator.uniform(0, spread, (300, 2))
    boxes = np.concatenate([corner, corner + generator.uniform(5, 20, (300, 2))], axis=1)
    boxes, scores = boxes.astype(np.float32), generator.integers(0, 50, 300).astype(np.float32)
    return boxes, scores, generator.integers(0, 3, 300)


def test_many_blocks_and_chains(many):
    boxes, scores, classes = many
    assert _kept(boxes, scores, 0.4, classes) == _brute_force(boxes, scores, 0.4, classes)


def test_images_at_once():
    both = jax.jit(jax.vmap(lambda boxes, scores: nms(boxes, scores, 0.5)))
    kept = jax.device_get(both(np.stack([BOXES, BOXES[::-1]]), np.stack([SCORES, SCORES[::-1]])))
    assert kept.mask.sum(axis=1).tolist() == [3, 3]
    assert kept.indices[0, :3].tolist() == [4, 0, 2] and kept.indices[1, :3].tolist() == [1, 0, 3]


def test_bad_input():
    with pytest.raises(InputError, match=r"scores have shape \[5\], expected \[6\]"):
        nms(BOXES, SCORES[:5])
