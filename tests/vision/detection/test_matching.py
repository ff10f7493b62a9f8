from typing import get_args

import jax
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.vision.detection.fcos_targets import STRIDES, Dialect, fcos_matches, fcos_points
from nnlab.vision.detection.matching import match, sample

ROWS = np.array([[0.9, 0.5, 0.2, 0.65, 0.1], [0.1, 0.4, 0.6, 0.65, 0.2], [0, 0.05, 0, 0, 0.25]])


MORE = np.concatenate([ROWS, np.zeros((1, 5)), np.full((1, 5), 0.99)])  # degenerate, and padding
MASK = np.array([True] * 4 + [False])


@pytest.fixture(scope="module")
def matches():
    @jax.jit
    def run(rows, more, mask):
        return {
            "forced": match(rows, 0.7, 0.3, force=True),
            "plain": match(rows, 0.7, 0.3),
            "regions": match(rows),
            "padded": match(more, 0.7, 0.3, force=True, mask=mask),
            "nothing": match(more, 0.7, 0.3, force=True, mask=mask & False),
            "ignored": match(rows, 0.5, 0.3, ignored=np.array([False, True, False])),
            "empty": match(rows[:0], 0.7, 0.3, force=True),
        }

    return {name: found.tolist() for name, found in run(ROWS, MORE, MASK).items()}


def test_golden_matches(matches):
    """Object 1 gets nothing: its best anchor overlaps object 0 as much, which comes first."""
    assert matches["forced"] == [0, -2, -2, 0, 2]
    assert matches["plain"] == [0, -2, -2, -2, -1]
    assert matches["regions"] == [0, 0, 1, 0, -1]


def test_padding_and_degenerate_objects_force_nothing(matches):
    assert matches["padded"] == matches["forced"]
    assert matches["nothing"] == matches["empty"] == [-1] * 5


def test_ignored_objects_hide_background(matches):
    """Anchors 1 and 3 are object 0's, anchor 2 overlaps the ignored one, anchor 4 neither."""
    assert matches["ignored"] == [0, 0, -2, 0, -1]


def test_bad_thresholds():
    with pytest.raises(InputError, match=r"background is 0\.8"):
        match(ROWS, 0.7, 0.8)
    with pytest.raises(InputError, match=r"expected \[3\]"):
        match(ROWS, mask=np.ones(2, bool))


@pytest.fixture(scope="module")
def draw():
    return jax.jit(sample, static_argnums=(2, 3))


def test_samples_are_balanced(draw):
    matches = np.array([-1] * 20 + [0, 1, 2, 3, 4] + [-2] * 5)
    counts = np.zeros(30, int)
    for seed in range(20):
        got = jax.device_get(draw(jax.random.key(seed), matches, 8, 0.25))
        assert got.mask.all() and got.positive.tolist() == [True] * 2 + [False] * 6
        assert len(set(got.indices.tolist())) == 8
        assert (matches[got.indices] >= 0).tolist() == got.positive.tolist()
        counts[got.indices] += 1
    assert not counts[25:].any() and counts[20:25].min() > 2


def test_samples_of_few_anchors_are_padded(draw):
    few = np.array([-2, -1, 3, -1] + [-2] * 26)
    got = jax.device_get(draw(jax.random.key(0), few, 8, 0.25))
    assert got.mask.tolist() == [True] * 3 + [False] * 5
    assert got.indices[0] == 2 and sorted(got.indices[1:3].tolist()) == [1, 3]
    assert got.positive.tolist() == [True] + [False] * 7
    nothing = draw(jax.random.key(0), np.full(30, -2), 8, 0.25)
    assert not nothing.mask.any()
    small = jax.eval_shape(lambda key: sample(key, few[:5], 8), jax.random.key(0))
    assert small.indices.shape == (5,)


BOXES = np.array([[8, 8, 56, 56], [20, 20, 120, 100], [30, 30, 50, 46]], np.float32)


def _brute_force(dialect):
    """FCOS's rules point by point, in plain Python."""
    levels = []
    for level, stride in enumerate(STRIDES):
        low, high = (0 if level == 0 else stride * 4), (1e9 if level == 4 else stride * 8)
        side = 128 // stride
        found = {}
        for row in range(side):
            for column in range(side):
                offset = stride // 2 if dialect == "paper" else 0
                x, y = column * stride + offset, row * stride + offset
                best = 1e9
                for number, (x1, y1, x2, y2) in enumerate(BOXES.tolist()):
                    sides = x - x1, y - y1, x2 - x, y2 - y
                    reach, far = 1.5 * stride, max(sides)
                    near = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) < reach
                    fits = low <= far <= high if dialect == "paper" else low < far < high
                    area = (x2 - x1) * (y2 - y1)
                    if min(sides) > 0 and near and fits and area < best:
                        best, found[x, y] = area, number
        levels.append(found)
    return levels


DIALECTS: tuple[Dialect, ...] = get_args(Dialect)
POINTS = {
    dialect: [fcos_points((128 // s, 128 // s), s, dialect) for s in STRIDES]
    for dialect in DIALECTS
}


@pytest.fixture(scope="module")
def assigned():
    @jax.jit
    def run(boxes, mask):
        return {
            dialect: fcos_matches(POINTS[dialect], boxes, mask, dialect=dialect)
            for dialect in DIALECTS
        }

    return run


@pytest.mark.parametrize("dialect", ["torchvision", "paper"])
def test_fcos_assignment(assigned, dialect):
    levels = []
    numbers = jax.device_get(assigned(BOXES, np.ones(3, bool))[dialect])
    for some, found in zip(POINTS[dialect], numbers, strict=True):
        places = np.flatnonzero(found >= 0)
        levels.append({tuple(some[i].tolist()): int(found[i]) for i in places})
    assert levels == _brute_force(dialect)
    if dialect == "torchvision":  # golden
        assert [list(levels[0].values()).count(number) for number in range(3)] == [5, 6, 6]
        assert (levels[0][24, 24], levels[0][32, 32], levels[0][64, 56]) == (0, 2, 1)
        assert levels[1] == {(48, 48): 1, (48, 64): 1, (48, 80): 1}
        assert levels[2:] == [{}, {}, {}]


def test_fcos_without_objects(assigned):
    levels = assigned(BOXES, np.zeros(3, bool))["paper"]
    assert all((np.asarray(level) == -1).all() for level in levels)
    shapes = jax.eval_shape(lambda: fcos_matches(POINTS["paper"], np.zeros((0, 4))))
    assert [len(level) for level in shapes] == [256, 64, 16, 4, 1]
