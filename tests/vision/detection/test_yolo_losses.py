"""Losses of YOLO against golden values and against darknet's code, transcribed to NumPy loops."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.vision.detection.anchors import YOLO_V3_TINY
from nnlab.vision.detection.yolo_loss import (
    yolo_boxes,
    yolo_targets,
    yolo_v2_loss,
    yolo_v3_loss,
)
from nnlab.vision.detection.yolo_v1_loss import yolo_v1_loss

ANCHORS = np.array([[10, 14], [30, 20], [50, 60], [20, 60]], np.float32)
GROUPS = ((2, 3), (0, 1))
# The first two objects share cell and anchor, the fourth is too narrow, the last is padding.
BOXES = np.array(
    [[10, 10, 58, 70], [12, 12, 60, 68], [70, 30, 95, 50], [5, 5, 5.05, 60], [0, 0, 64, 64]],
    np.float32,
)
CLASSES, MASK, SIZE = np.array([0, 2, 1, 1, 0]), np.array([True] * 4 + [False]), (96, 128)


def _iou(a, b):
    low, high = (
        np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2),
        np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2),
    )
    shared = np.maximum(high - low, 0).prod()
    return shared / (a[2:].prod() + b[2:].prod() - shared)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _darknet(raw, group, version, ignore, warm_up=0.0):
    """Return delta, minus the gradient, of yolo_layer.c (3) or region_layer.c (2)."""
    raw = raw.astype(np.float64)
    out, delta = raw.copy(), np.zeros_like(raw, np.float64)
    out[..., :2], out[..., 4] = _sigmoid(raw[..., :2]), _sigmoid(raw[..., 4])
    if version == 3:
        out[..., 5:] = _sigmoid(raw[..., 5:])
    else:
        out[..., 5:] = np.exp(raw[..., 5:]) / np.exp(raw[..., 5:]).sum(-1, keepdims=True)
    wide = np.array([SIZE[1], SIZE[0]])
    parts = ANCHORS / wide
    truths = []
    for box, label, there in zip(BOXES, CLASSES, MASK, strict=True):
        sides = (box[2:] - box[:2]) / wide
        if there and (sides >= 0.001).all():
            truths.append((np.concatenate([(box[:2] + box[2:]) / 2 / wide, sides]), label))
    rows, columns = raw.shape[:2]
    grid = np.array([columns, rows])

    def predicted(j, i, n):
        t = out[j, i, n]
        return np.concatenate([(t[:2] + np.array([i, j])) / grid, np.exp(t[2:4]) * parts[group[n]]])

    def pull(j, i, n, truth, scale):
        target = truth[:2] * grid - [i, j]
        delta[j, i, n, :2] = scale * (target - out[j, i, n, :2])
        target = np.log(truth[2:] / parts[group[n]])
        delta[j, i, n, 2:4] = scale * (target - out[j, i, n, 2:4])

    for j in range(rows):
        for i in range(columns):
            for n in range(len(group)):
                best = max(_iou(predicted(j, i, n), truth) for truth, _ in truths)
                delta[j, i, n, 4] = 0 if best > ignore else -out[j, i, n, 4]
                if warm_up:
                    middle = np.concatenate([(np.array([i, j]) + 0.5) / grid, parts[group[n]]])
                    pull(j, i, n, middle, warm_up)
    for truth, label in truths:
        i, j = (truth[:2] * grid).astype(int)
        alike = [_iou(np.r_[0, 0, part], np.r_[0, 0, truth[2:]]) for part in parts]
        if int(np.argmax(alike)) not in group:
            continue
        n = group.index(int(np.argmax(alike)))
        overlap = _iou(predicted(j, i, n), truth)
        pull(j, i, n, truth, 2 - truth[2:].prod())
        if version == 2:
            delta[j, i, n, 4] = 5 * (overlap - out[j, i, n, 4])
            delta[j, i, n, 5:] = (np.arange(3) == label) - out[j, i, n, 5:]
        else:
            delta[j, i, n, 4] = 1 - out[j, i, n, 4]
            if delta[j, i, n, 5]:  # set already: one more class
                delta[j, i, n, 5 + label] = 1 - out[j, i, n, 5 + label]
            else:
                delta[j, i, n, 5:] = (np.arange(3) == label) - out[j, i, n, 5:]
    return delta


@pytest.fixture(scope="module")
def outputs():
    generator = np.random.default_rng(0)
    shapes = [(3, 4, 2, 8), (6, 8, 2, 8), (3, 4, 4, 8)]
    return [generator.normal(0, 0.7, shape).astype(np.float32) for shape in shapes]


REST: Any = {"anchors": ANCHORS, "image_shape": SIZE, "ignore": 0.3}


@pytest.fixture(scope="module")
def third():
    @jax.jit
    @jax.grad
    def slopes(grids, mask):
        return sum(yolo_v3_loss(grids, BOXES, CLASSES, mask, groups=GROUPS, **REST))

    return slopes


def _learns_background(slope, grid):
    np.testing.assert_allclose(slope[..., 4], _sigmoid(grid[..., 4]), rtol=1e-5)
    assert not np.delete(slope, 4, axis=-1).any()


def test_gradients_of_v3_are_those_of_darknet(outputs, third):
    found = jax.device_get(third(outputs[:2], MASK))
    for slope, grid, group in zip(found, outputs, GROUPS, strict=False):
        np.testing.assert_allclose(-slope, _darknet(grid, group, 3, 0.3), atol=2e-6)
    for slope, grid in zip(third(outputs[:2], MASK & False), outputs, strict=False):
        _learns_background(slope, grid)


def test_large_exponents_and_no_objects(outputs, third):
    """Sides beyond any number are far off, but no NaN; nor is an empty list of objects."""
    far = [grid.copy() for grid in outputs[:2]]
    far[0][..., 2:4], far[1][..., 2:4] = 500, -500
    assert all(np.isfinite(slope).all() for slope in third(far, MASK))
    nothing = BOXES[:0], CLASSES[:0], MASK[:0]
    for loss, grids, more in (
        (yolo_v3_loss, outputs[:2], {"groups": GROUPS}),
        (yolo_v2_loss, outputs[2], {}),
    ):
        parts = jax.eval_shape(lambda g, f=loss, m=more: f(g, *nothing, **m, **REST), grids)
        assert all(part.shape == () for part in parts)


@pytest.mark.slow
def test_gradients_of_v2_are_those_of_darknet(outputs):
    @jax.jit
    @jax.grad
    def slopes(grid, mask, warm_up):
        return sum(yolo_v2_loss(grid, BOXES, CLASSES, mask, warm_up=warm_up, **REST))

    for warm_up in (0.0, 0.01):
        expected = _darknet(outputs[2], (0, 1, 2, 3), 2, 0.3, warm_up)
        np.testing.assert_allclose(-slopes(outputs[2], MASK, warm_up), expected, atol=5e-6)
    _learns_background(slopes(outputs[2], MASK & False, 0.0), outputs[2])


def test_golden_v3():
    centers = np.array([[0.5, 0.5, 0.2, 0.3], [0.1, 0.9, 0.03, 0.05]])
    boxes = np.concatenate(
        [centers[:, :2] - centers[:, 2:] / 2, centers[:, :2] + centers[:, 2:] / 2], 1
    )
    options = {"image_shape": (416, 416), "class_count": 2}
    raw = np.zeros((13, 13, 3, 4), np.float32)
    raw[6, 6, 1] = [0.2, -0.4, 0.1, -0.3]

    @jax.jit
    def run(boxes, raw):
        coarse, fine = (
            yolo_targets(
                boxes, np.arange(2), np.ones(2, bool), (s, s), YOLO_V3_TINY, group, **options
            )
            for s, group in ((13, (3, 4, 5)), (26, (0, 1, 2)))
        )
        return coarse, fine, yolo_boxes(raw, YOLO_V3_TINY[3:], (416, 416))

    coarse, fine, decoded = jax.device_get(run((boxes * 416).astype(np.float32), raw))
    assert np.argwhere(coarse.responsible).tolist() == [[6, 6, 0]]  # anchor 3
    np.testing.assert_allclose(coarse.codes[6, 6, 0], [0.5, 0.5, 0.0268, 0.41999], atol=1e-5)
    assert coarse.weight[6, 6, 0] == pytest.approx(1.94)
    assert np.argwhere(fine.responsible).tolist() == [[23, 2, 0]]
    np.testing.assert_allclose(fine.codes[23, 2, 0], [0.6, 0.4, 0.22154, 0.3959], atol=1e-5)
    assert fine.classes[23, 2, 0].tolist() == [0, 1]
    x1, y1, x2, y2 = decoded[6, 6, 1] / 416
    golden = [0.5038334, 0.4924086, 0.3586492, 0.3009574]
    np.testing.assert_allclose([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], golden, atol=1e-6)


def test_golden_v1():
    outputs = (((np.arange(52).reshape(2, 2, 13) * 7) % 11) / 11).astype(np.float32)
    # The centre is at (0.3, 0.6) of the cell in row 0 and column 1; the second shares its cell.
    boxes = np.array([[40, 10, 90, 50], [50, 20, 80, 40], [0, 0, 0, 0]], np.float32)
    run = jax.jit(
        lambda outputs, mask: jnp.stack(
            yolo_v1_loss(outputs, boxes, np.array([2, 0, 1]), mask, image_shape=(100, 100))
        )
    )
    parts = run(outputs, np.array([True, True, False]))
    np.testing.assert_allclose(parts, [1.0165289, 0.4758030, 1.1074380, 1.7826750], rtol=1e-6)
    assert float(parts.sum()) == pytest.approx(4.3824449, rel=1e-6)
    nothing = run(outputs, np.zeros(3, bool))
    np.testing.assert_allclose(nothing, [0.5 * (outputs[..., 3:5] ** 2).sum(), 0, 0, 0], rtol=1e-6)


def test_bad_shapes(outputs):
    with pytest.raises(InputError, match="for groups of"):
        yolo_v3_loss(
            *(outputs[:1], BOXES, CLASSES, MASK),
            anchors=ANCHORS,
            groups=((0, 1, 2),),
            image_shape=SIZE,
        )
    with pytest.raises(InputError, match=r"expected \[H, W, 3, 5 \+ classes\]"):
        yolo_v2_loss(outputs[2], BOXES, CLASSES, MASK, anchors=ANCHORS[:3], image_shape=SIZE)
    with pytest.raises(InputError, match="classes have shape"):
        yolo_v1_loss(
            outputs[0][..., 0, :], BOXES, CLASSES[:2], MASK, image_shape=SIZE, boxes_per_cell=1
        )
