"""AP of VOC and COCO: golden values, rules worked by hand, and pycocotools."""

import importlib.util

import numpy as np
import pytest

from nnlab.errors import InputError, MissingPackageError
from nnlab.vision.detection.coco_ap import coco_ap, pycocotools_ap
from nnlab.vision.detection.found import found, truth
from nnlab.vision.detection.voc_ap import voc_ap

GROUND_TRUTH = {  # rafaelpadilla/Object-Detection-Metrics (MIT): x, y, width, height
    1: [[25, 16, 38, 56], [129, 123, 41, 62]],
    2: [[123, 11, 43, 55], [38, 132, 59, 45]],
    3: [[16, 14, 35, 48], [123, 30, 49, 44], [99, 139, 47, 47]],
    4: [[53, 42, 40, 52], [154, 43, 31, 34]],
    5: [[59, 31, 44, 51], [48, 128, 34, 52]],
    6: [[36, 89, 52, 76], [62, 58, 44, 67]],
    7: [[28, 31, 55, 63], [58, 67, 50, 58]],
}
DETECTIONS = [  # image, score, x, y, width, height
    *([1, 0.88, 5, 67, 31, 48], [1, 0.7, 119, 111, 40, 67], [1, 0.8, 124, 9, 49, 67]),
    *([2, 0.71, 64, 111, 64, 58], [2, 0.54, 26, 140, 60, 47], [2, 0.74, 19, 18, 43, 35]),
    *([3, 0.18, 109, 15, 77, 39], [3, 0.67, 86, 63, 46, 45], [3, 0.38, 160, 62, 36, 53]),
    *([3, 0.91, 105, 131, 47, 47], [3, 0.44, 18, 148, 40, 44], [4, 0.35, 83, 28, 28, 26]),
    *([4, 0.78, 28, 68, 42, 67], [4, 0.45, 87, 89, 25, 39], [4, 0.14, 10, 155, 60, 26]),
    *([5, 0.62, 50, 38, 28, 46], [5, 0.44, 95, 11, 53, 28], [5, 0.95, 29, 131, 72, 29]),
    *([5, 0.23, 29, 163, 72, 29], [6, 0.45, 43, 48, 74, 38], [6, 0.84, 17, 155, 29, 35]),
    *([6, 0.43, 95, 110, 25, 42], [7, 0.48, 16, 20, 101, 88], [7, 0.95, 33, 116, 37, 49]),
]


def _corners(boxes):
    boxes = np.array(boxes, float).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


@pytest.fixture(scope="module")
def one_class():
    truths = [truth(_corners(b), np.zeros(len(b), int)) for b in GROUND_TRUTH.values()]
    images = []
    for image in GROUND_TRUTH:
        rows = np.array([row[1:] for row in DETECTIONS if row[0] == image])
        images.append(found(_corners(rows[:, 1:]), rows[:, 0], np.zeros(len(rows), int)))
    return images, truths


@pytest.fixture(scope="module")
def two_classes():
    predictions = [
        (
            [[10, 10, 50, 50], [12, 12, 48, 52], [60, 60, 90, 90], [0, 0, 20, 20]],
            [0.9, 0.75, 0.6, 0.3],
            [0, 0, 1, 1],
        ),
        ([[5, 5, 25, 25], [100, 100, 180, 180]], [0.8, 0.7], [0, 1]),
        ([[1, 1, 9, 9]], [0.95], [0]),
    ]
    targets = [
        ([[10, 10, 50, 55], [62, 58, 92, 88]], [0, 1]),
        ([[5, 5, 25, 24], [110, 105, 185, 175], [30, 30, 40, 40]], [0, 1, 0]),
        ([], []),
    ]
    return [found(*each) for each in predictions], [truth(*each) for each in targets]


@pytest.mark.parametrize(
    ("threshold", "points", "inclusive", "golden", "right"),
    [
        (0.3, "eleven", True, 0.26839826839826836, 7),
        (0.3, "eleven", False, 0.26839826839826836, 6),
        (0.3, "all", True, 0.24568668046928915, 7),
        (0.3, "all", False, 0.22539682539682537, 6),
        (0.5, "eleven", False, 0.0303030303030303, 1),
        (0.5, "all", True, 0.02222222222222222, 1),
    ],
)
def test_golden_voc(one_class, threshold, points, inclusive, golden, right):
    score = voc_ap(*one_class, classes=1, threshold=threshold, points=points, inclusive=inclusive)
    assert score.mean == pytest.approx(golden, abs=1e-12)
    assert score.curves[0].right.sum() == right and score.curves[0].objects == 15


def test_golden_coco(one_class, two_classes):
    scores = coco_ap(*one_class, classes=1).scores
    assert scores[:9] == pytest.approx(
        (0.00462, 0.023102, 0, -1, 0.00462, -1, 0.013333, 0.013333, 0.013333), abs=1e-6
    )
    result = coco_ap(*two_classes, classes=2)
    assert result.scores[:9] == pytest.approx(
        (0.450743, 0.721122, 0.34736, 0.426238, 0.65, -1, 0.575, 0.575, 0.575), abs=1e-6
    )
    np.testing.assert_allclose(result.ap_by_class, [0.376238, 0.525248], atol=1e-6)
    np.testing.assert_allclose(result.ar_by_class, [0.6, 0.55])
    assert voc_ap(*two_classes, classes=2).by_class == pytest.approx([0.444444, 1], abs=1e-6)
    eleven = voc_ap(*two_classes, classes=2, points="eleven")
    assert eleven.by_class == pytest.approx([0.424242, 1], abs=1e-6)


def test_voc_rules_by_hand():
    """Difficult objects count neither way, and an object that was found is found once."""
    box = [[0, 0, 10, 10], [20, 20, 30, 30]]
    there = [truth(box, [0, 0], ignored=[False, True])]
    both = [found([*box, box[0]], [0.9, 0.8, 0.7], [0, 0, 0])]
    curve = voc_ap(both, there, 1).curves[0]
    assert curve.right.tolist() == [True, False] and curve.objects == 1
    # A detection looks at its best object alone: the second is wrong, though another is free.
    near = [truth([[0, 0, 10, 10], [0, 0, 10, 16]], [0, 0])]
    twice = [found([[0, 0, 10, 10], [0, 0, 10, 11]], [0.9, 0.8], [0, 0])]
    assert voc_ap(twice, near, 1).curves[0].right.tolist() == [True, False]
    # COCO's takes the best that is free.
    assert coco_ap(twice, near, 1).scores.ap50 == pytest.approx(1)


def test_nothing_there_and_nothing_found(two_classes):
    detections, truths = two_classes
    nobody = [found([], [], []) for _ in truths]
    assert coco_ap(nobody, truths, 2).scores[:2] == (0, 0) and voc_ap(nobody, truths, 2).mean == 0
    empty = [truth([], []) for _ in truths]
    assert set(coco_ap(detections, empty, 2).scores) == {-1}
    assert np.isnan(voc_ap(detections, empty, 2).mean)


def test_absent_classes_leave_the_mean(two_classes):
    """A third class that is predicted, but is in no image, changes no mean."""
    detections, truths = two_classes
    more = [*detections[:2], found([[1, 1, 9, 9]], [0.95], [2])]
    two, three = coco_ap(more, truths, 2 + 1), coco_ap(more, truths, 4)
    assert two.ap_by_class[2] == -1 and two.scores == three.scores
    by_class = voc_ap(more, truths, 3).by_class
    assert np.isnan(by_class[2]) and voc_ap(more, truths, 3).mean == by_class[:2].mean()


def _random(generator, images=4):
    detections, truths = [], []
    for _ in range(images):
        n, m = generator.integers(0, 8), generator.integers(0, 25)
        corner, sides = generator.uniform(0, 200, (n, 2)), generator.uniform(5, 150, (n, 2))
        boxes = np.concatenate([corner, corner + sides], axis=1)
        crowd = generator.uniform(size=n) < 0.2
        truths.append(truth(boxes, generator.integers(0, 3, n), ignored=crowd))
        near = generator.integers(0, max(n, 1), m)
        place = boxes[near] if n else np.tile([0, 0, 50, 50], (m, 1))
        place = place + generator.normal(0, 6, (m, 4)).round()
        place[:, 2:] = np.maximum(place[:, 2:], place[:, :2] + 1)
        kinds = truths[-1].classes[near] if n else near
        detections.append(found(place, generator.uniform(size=m).round(1), kinds))
    return detections, truths


def test_pycocotools_agrees(one_class, two_classes):
    if importlib.util.find_spec("pycocotools") is None:
        with pytest.raises(MissingPackageError, match="pycocotools is not installed"):
            pycocotools_ap(*two_classes, classes=2)
        return
    generator = np.random.default_rng(0)
    for detections, truths in (one_class, two_classes, _random(generator), _random(generator)):
        ours = coco_ap(detections, truths, 4).scores
        assert ours == pytest.approx(pycocotools_ap(detections, truths, 4), abs=1e-12)
    nobody = [found([], [], []) for _ in truths]
    assert pycocotools_ap(nobody, truths, 4).ap == 0


def test_padding_and_bad_input():
    padded = found(np.eye(4), [1, 2, 3, 4], [0, 1, 2, 3], [True, False, True, False])
    assert padded.scores.tolist() == [1, 3] and padded.classes.tolist() == [0, 2]
    with pytest.raises(InputError, match="a score is nan"):
        found(np.eye(4)[:1], [np.nan], [0])
    with pytest.raises(InputError, match=r"an object of image 0 is of class 1, expected 0"):
        voc_ap([found([], [], [])], [truth([[0, 0, 1, 1]], [1])], 1)
    with pytest.raises(InputError, match="1 images and objects of 0"):
        coco_ap([found([], [], [])], [], 1)
