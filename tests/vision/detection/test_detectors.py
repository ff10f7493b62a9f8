"""Detectors: what outputs mean, average precision in batches, and that each YOLO learns."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab import training
from nnlab.arithmetics import ADDER, FLOAT
from nnlab.errors import InputError
from nnlab.vision.datasets.labelled import Boxes
from nnlab.vision.datasets.voc import voc_records
from nnlab.vision.detection.anchors import YOLO_V3_TINY, clustered_anchors
from nnlab.vision.detection.detectors import (
    Detections,
    average_precision,
    best_boxes,
    loss_parts,
    total_loss,
)
from nnlab.vision.detection.found import found, truth
from nnlab.vision.detection.voc_ap import voc_ap
from nnlab.vision.detection.yolo import YOLOv2, YOLOv3Tiny
from nnlab.vision.detection.yolo_detectors import (
    TINY_GROUPS,
    YoloV1Detector,
    YoloV2Detector,
    YoloV3Detector,
)
from nnlab.vision.detection.yolo_v1 import TINY, YOLOv1
from nnlab.vision.pictures import Resize


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


@pytest.mark.slow
def test_v3_detects_the_golden_box_for_both_of_its_classes():
    detector = YoloV3Detector((416, 416), YOLO_V3_TINY, TINY_GROUPS, count=3)
    grids = [np.full((1, side, side, 3, 7), -20, np.float32) for side in (13, 26)]
    grids[0][..., :4] = grids[1][..., :4] = 0
    grids[0][0, 6, 6, 1] = [0.2, -0.4, 0.1, -0.3, 2, 1, 3]
    boxes, scores, classes, mask = (np.asarray(a)[0] for a in detector.detect(grids))
    x, y, w, h = 416 * np.array([0.5038334, 0.4924086, 0.3586492, 0.3009574])
    np.testing.assert_allclose(boxes[:2], [[x - w / 2, y - h / 2, x + w / 2, y + h / 2]] * 2, 1e-5)
    np.testing.assert_allclose(scores[:2], sigmoid(2) * sigmoid([3, 1]), 1e-5)
    assert (classes[:2].tolist(), mask.tolist()) == ([1, 0], [True, True, False])
    with pytest.raises(InputError, match="1 grids for 2 groups"):
        detector.detect(grids[0])


@pytest.mark.slow
def test_v1_detects_what_its_loss_asks_for():
    detector, box = YoloV1Detector((96, 128), boxes=2, count=2), np.array([20.0, 30, 60, 70])
    cells = np.zeros((1, 3, 4, 13), np.float32)
    sides = np.sqrt([40 / 128, 40 / 96])
    cells[0, 1, 1, :5] = [0, 0, 0.8, 0, 0.5]  # cells of 32 pixels: the centre is (1.25, 1.5625)
    cells[0, 1, 1, 9:] = [0.25, 0.5625, *sides]
    boxes, scores, classes, mask = (np.asarray(a)[0] for a in detector.detect(jnp.asarray(cells)))
    np.testing.assert_allclose(boxes[0], box, 1e-5)
    assert scores[0] == pytest.approx(0.4) and (classes[0], mask.tolist()) == (2, [True, False])
    parts: Any = detector.loss(cells, box[None, None], np.array([[2]]), np.array([[True]]))
    assert parts.boxes[0] < 1e-10 and parts.object[0] == pytest.approx(0.25)


@pytest.mark.slow
def test_scores_of_v2_are_shares_of_its_objectness():
    detector = YoloV2Detector((64, 64), anchors=((20, 20), (40, 40)), count=4)
    outputs = np.full((1, 2, 2, 2, 8), 0, np.float32)
    outputs[..., 4] = -20
    outputs[0, 1, 0, 1, 4:] = [1, 2, 0, -1]
    boxes, scores, classes, mask = (np.asarray(a)[0] for a in detector.detect(jnp.asarray(outputs)))
    np.testing.assert_allclose(boxes[0], [0, 28, 36, 64], 1e-6)  # cut off at the image's border
    shares = np.exp([2, 0, -1]) / np.exp([2, 0, -1]).sum()
    np.testing.assert_allclose(scores[:3], sigmoid(1) * shares, 1e-5)
    assert (classes[:3].tolist(), mask.tolist()) == ([0, 1, 2], [True, True, True, False])


def test_average_precision_in_batches_is_that_of_all_at_once():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 50, (7, 3, 2))
    objects = Boxes(
        np.concatenate([low, low + rng.uniform(5, 30, (7, 3, 2))], -1).astype(np.float32),
        rng.integers(0, 2, (7, 3)).astype(np.int32),
        rng.random((7, 3)) < 0.8,
        rng.random((7, 3)) < 0.2,
    )
    moved = objects.boxes + rng.normal(0, 3, (7, 3, 4)).astype(np.float32)
    scores = rng.random((7, 3)).astype(np.float32)
    sizes = []

    def predict(numbers):
        sizes.append(len(numbers))
        one = numbers.astype(int)
        found: Any = moved[one], scores[one], objects.classes[one], np.ones((4, 3), bool)
        return Detections(*found)

    examples: Any = (np.arange(7.0), objects)
    batched = average_precision(predict, examples, 2, batch_size=4)
    detections = [found(*each) for each in zip(moved, scores, objects.classes, strict=True)]
    truths = [truth(b, c, m, ignored=d) for b, c, m, d in zip(*objects, strict=True)]
    whole = voc_ap(detections, truths, 2)
    np.testing.assert_array_equal(batched.by_class, whole.by_class)
    assert sizes == [4, 4] and 0 < whole.mean < 1


@pytest.mark.slow
def test_only_the_best_candidates_are_compared():
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [0, 0, 10, 5]], np.float32)
    chosen = best_boxes(boxes, np.array([0.9, 0.8, 0.04, 0.7]), np.zeros(4, int), count=3)
    assert chosen.mask.tolist() == [True, True, False]  # the third is below the least score
    np.testing.assert_allclose(chosen.scores, [0.9, 0.7, 0], 1e-6)
    assert not np.any(chosen.boxes[2])
    few = best_boxes(boxes, np.array([0.9, 0.8, 0.5, 0.7]), np.zeros(4, int), candidates=2, count=3)
    assert few.mask.tolist() == [True, False, False]


def smallest(version, arithmetic, sizes):
    """A reduced network, its detector for images of 96 by 128 or twice that, and a rate."""

    def anchors(count):
        return tuple((float(w), float(h)) for w, h in clustered_anchors(sizes, count))

    if version == 3:
        detector = YoloV3Detector((96, 128), anchors(6), TINY_GROUPS)
        return YOLOv3Tiny(3, arithmetic=arithmetic, features=4), detector, 1e-2, 200
    if version == 2:
        return (
            YOLOv2(3, arithmetic=arithmetic, features=4),
            YoloV2Detector((192, 256), anchors(5)),
            1e-2,
            150,
        )
    stages = (*TINY[:4], ((128, 3),))
    network: Any = YOLOv1(
        3, arithmetic=arithmetic, boxes=2, stages=stages, connected=0, features=16, published=16
    )
    return network, YoloV1Detector((96, 128), boxes=2), 3e-3, 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "arithmetic"),
    [(3, FLOAT), (3, ADDER), (2, FLOAT), (1, FLOAT)],
    ids=["v3-float", "v3-adder", "v2-float", "v1-float"],
)
def test_eight_pictures_are_learnt(version, arithmetic, original_data):
    height, width = (192, 256) if version == 2 else (96, 128)
    resize = Resize(height, width, "stretch")
    (records,) = voc_records(original_data / "bccd" / "BCCD", splits=["train"], resize=resize)
    pictures, objects = records.gather(range(8))
    images, corners = pictures.astype(np.float32) / 255, objects.boxes[objects.mask]
    model, detector, rate, steps = smallest(version, arithmetic, corners[:, 2:] - corners[:, :2])
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))
    state = training.init(jax.random.key(0), model, optimizer, images)
    step = jax.jit(
        training.train_step(model, optimizer, total_loss(detector), metrics=loss_parts(detector))
    )
    for _ in range(steps):
        state, _ = step(state, (images, objects))
    state = training.fresh_statistics(model, images, 8)(state)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    predict = jax.jit(lambda images: detector.detect(model.apply(variables, images)))
    assert average_precision(predict, (images, objects), 3).mean >= 0.9
