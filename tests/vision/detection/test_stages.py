"""Losses and choices of two-stage and dense detectors: the numbers of torchvision 0.28."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.vision.detection.anchors import RETINA_SIZES, pyramid_anchors
from nnlab.vision.detection.fcos import FCOSDetector, FCOSOutputs
from nnlab.vision.detection.proposals import proposal_loss, propose
from nnlab.vision.detection.retinanet import RetinaNetDetector, RetinaNetOutputs
from nnlab.vision.detection.roi_head import detected_regions, region_loss, sampled_proposals

SHAPE = 64, 64
BOXES = np.array(
    [[[8, 8, 56, 56], [20, 20, 60, 50], [0] * 4], [[30, 4, 62, 40], [0] * 4, [0] * 4]], np.float32
)
CLASSES = np.array([[0, 2, 0], [1, 0, 0]])
MASK = np.array([[True, True, False], [True, False, False]])


def wave(*shape, scale=1.0):
    return (np.sin(np.arange(np.prod(shape)) * 1.7) * scale).reshape(shape).astype(np.float32)


def levels(array, counts):
    return np.split(array, np.cumsum(counts)[:-1], axis=1)


def means(parts):
    return [float(each.mean()) for each in parts]


SIDES = (8, 4, 2, 1, 1)


def test_fcos_of_torchvision(quick_jit):
    counts = [side**2 for side in SIDES]
    logits = levels(wave(2, sum(counts), 3), counts)
    sides = levels(np.abs(wave(2, sum(counts), 4, scale=3)) + np.float32(0.1), counts)
    centers = levels(wave(2, sum(counts), 1), counts)
    outputs = FCOSOutputs([], [], [])
    for number, side in enumerate(SIDES):
        for name, some in zip(FCOSOutputs._fields, (logits, sides, centers), strict=True):
            stride = 8 * 2**number if name == "distances" else 1
            getattr(outputs, name).append(some[number].reshape(2, side, side, -1) * stride)
    detector = FCOSDetector(SHAPE, "torchvision")
    parts = quick_jit(detector.loss)(outputs, BOXES, CLASSES, MASK)
    assert all(each.shape == (2,) for each in parts)
    np.testing.assert_allclose(means(parts), [4.8428082, 0.7434827, 0.7148236], rtol=1e-5)


@pytest.mark.slow
def test_fcos_of_the_paper(quick_jit):
    """By hand: one object, one point that has it, of distances 24, 24, 24, 24."""
    filled: Any = (
        [np.full((1, side, side, size), value, np.float32) for side in SIDES]
        for size, value in ((2, -50), (4, 20), (1, 0))
    )
    outputs: Any = FCOSOutputs(*filled)
    boxes, there = np.array([[[4, 4, 52, 52]]], np.float32), np.ones((1, 1), bool)
    detector = FCOSDetector(SHAPE, "paper", radius=0.4)  # of stride 8: from 24.8 to 31.2
    parts = quick_jit(detector.loss)(outputs, boxes, np.array([[1]]), there)
    weight = 24 / 24  # the point (28, 28) is the middle
    expected = [0.25 * 50, -np.log((40**2 + 1) / (48**2 + 1)) * weight, np.log(2)]
    np.testing.assert_allclose(means(parts), expected, rtol=1e-5)
    nothing = quick_jit(detector.loss)(outputs, boxes, np.array([[1]]), ~there)
    np.testing.assert_allclose(means(nothing), 0, atol=1e-6)
    outputs.logits[0][0, 2, 3] = [2, 0]
    outputs.logits[0][0, 2, 4] = [1, -9]
    found = jax.device_get(quick_jit(detector.detect)(outputs))
    assert found.mask.sum() == 2 and found.classes[0, :2].tolist() == [0, 1]
    np.testing.assert_allclose(found.scores[0, :2], [0.5 / (1 + np.exp(-2)), 0.25], rtol=1e-5)
    np.testing.assert_allclose(found.boxes[0, 0], [8, 0, 48, 40])  # around (28, 20)


def test_retinanet(quick_jit):
    shapes = [(side, side) for side in SIDES]
    anchors = pyramid_anchors(SHAPE, shapes, RETINA_SIZES)
    counts = [len(each) for each in anchors]
    logits, codes = (levels(wave(2, sum(counts), size), counts) for size in (3, 4))
    levelled: Any = logits, codes, [np.stack([each, each]) for each in anchors]
    outputs = RetinaNetOutputs(*levelled)
    parts = quick_jit(RetinaNetDetector(SHAPE).loss)(outputs, BOXES, CLASSES, MASK)
    np.testing.assert_allclose(means(parts), [17.1963062, 2.6998849], rtol=1e-5)


@pytest.fixture(scope="module")
def first_stage():
    sides = (16, 8, 4, 2, 1)
    anchors = pyramid_anchors(SHAPE, [(side, side) for side in sides])
    assert sum(map(len, anchors)) == 1023
    return anchors, wave(2, 1023), wave(2, 1023, 4)


def test_loss_of_proposals(first_stage, quick_jit):
    """The sample holds all anchors, so that there is nothing to draw."""
    anchors, objectness, codes = first_stage

    def run(objectness, codes, boxes, mask):
        everything = jnp.stack([np.concatenate(anchors)] * 2)
        keys = jax.random.split(jax.random.key(0))
        return proposal_loss(keys, objectness, codes, everything, boxes, mask, size=4096)

    parts = quick_jit(run)(objectness, codes, BOXES, MASK)
    np.testing.assert_allclose(means(parts), [0.7512716, 0.0249087], rtol=1e-5)


@pytest.mark.slow
def test_proposals(first_stage, quick_jit):
    anchors, *found = first_stage
    counts = [len(each) for each in anchors]

    def run(objectness, codes):
        some = list(zip(objectness, codes, strict=True))
        return propose(some, anchors, SHAPE, 20, 12)

    boxes, there = quick_jit(run)(*(levels(each, counts) for each in found))
    assert boxes.shape == (2, 12, 4) and there.all()
    np.testing.assert_allclose(boxes.sum((1, 2)), [1948.18127, 2060.04907], rtol=1e-6)
    golden = [[9.0092154, 49.165344, 33.040604, 62.004532], [33.448357, 53.717705, 64, 62.215415]]
    np.testing.assert_allclose(boxes[0, :2], golden, rtol=1e-5)


@pytest.fixture(scope="module")
def second_stage():
    proposals = np.abs(wave(2, 10, 4, scale=30))
    proposals[..., 2:] = proposals[..., :2] + np.abs(wave(2, 10, 2, scale=25)) + 4
    proposals[0, 0], proposals[1, 3] = [10, 9, 55, 57], [28, 5, 60, 41]
    proposals[0, 5] = [22, 18, 58, 50]
    return wave(2, 10, 4, scale=2), wave(2, 10, 4, 4), proposals, np.ones((2, 10), bool)


def test_loss_of_regions(second_stage, quick_jit):
    parts = quick_jit(region_loss)(*second_stage, BOXES, CLASSES, MASK)
    np.testing.assert_allclose(means(parts), [1.8352944, 0.3287935], rtol=1e-5)


def test_detections_of_regions(second_stage, quick_jit):
    def run(logits, codes, proposals, there):
        return detected_regions(logits, codes, proposals, there, SHAPE, count=6)

    found = jax.device_get(quick_jit(run)(*second_stage))
    assert found.mask.all()
    scores = [0.8053102, 0.7971932, 0.7636392, 0.7037229, 0.6661557, 0.6050325]
    np.testing.assert_allclose(found.scores[0], scores, rtol=1e-5)
    np.testing.assert_array_equal(found.classes + 1, [[1, 2, 2, 3, 3, 1], [1, 3, 1, 1, 3, 2]])
    golden = [[15.1624603, 15.6237202, 54.2845612, 58.0417557]]
    np.testing.assert_allclose(found.boxes[0, :1], golden, rtol=1e-5)


def test_a_sample_has_the_objects_and_no_more_positive_ones_than_its_share(second_stage):
    *_, proposals, there = second_stage
    arrays: Any = proposals, there, BOXES, MASK
    run = jax.jit(lambda key: sampled_proposals(key, *arrays, size=8, positive_share=0.5))
    boxes, mask = jax.device_get(run(jax.random.key(3)))
    assert boxes.shape == (2, 8, 4) and mask.all()
    expected = {(8, 8, 56, 56), (20, 20, 60, 50)}, {(30, 4, 62, 40)}
    for some, objects in zip(boxes, expected, strict=True):
        assert objects <= {tuple(map(int, box)) for box in some}
