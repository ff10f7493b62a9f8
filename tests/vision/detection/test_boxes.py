import jax
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.vision.detection import boxes, coding

A = np.array([[10, 20, 50, 80], [0, 0, 10, 10], [5, 5, 5, 5], [3, 1, 9, 4]], np.float32)
B = np.array([[30, 10, 70, 60], [20, 0, 30, 10], [5, 5, 5, 5], [3, 1, 9, 4]], np.float32)


@pytest.fixture(scope="module")
def measures():
    @jax.jit
    def all_of(a, b):
        return {
            "iou": boxes.iou(a, b),
            "giou": boxes.giou(a, b),
            "diou": boxes.diou(a, b),
            "ciou": boxes.ciou(a, b),
            "inclusive": boxes.iou(a, b, inclusive=True),
            "pairs": boxes.pairwise(a, b),
            "there and back": boxes.corners(boxes.centers(a)),
            "clipped": boxes.clip(a - 5, 50, 40),
            "slopes": jax.grad(lambda a: (boxes.giou(a, b) + boxes.ciou(a, b)).sum())(a),
        }

    return jax.device_get(all_of(A, B))


def test_golden_overlaps(measures):
    found = np.stack([measures[name][:2] for name in ("iou", "giou", "diou", "ciou")])
    golden = [[0.2222222, 0], [0.0793651, -1 / 3], [0.1486928, -0.4], [0.1486809, -0.4]]
    np.testing.assert_allclose(found, golden, atol=2e-7)


def test_degenerate_boxes_have_no_overlap_and_finite_slopes(measures):
    assert measures["iou"][2] == 0 and measures["inclusive"][2] == 1
    assert np.isfinite(measures["slopes"]).all()
    assert all(measures[name][3] == 1 for name in ("iou", "giou", "diou", "ciou"))


def test_all_pairs_and_other_forms(measures):
    np.testing.assert_array_equal(np.diag(measures["pairs"]), measures["iou"])
    assert measures["pairs"].shape == (4, 4)
    np.testing.assert_allclose(measures["there and back"], A)
    assert measures["clipped"][:2].tolist() == [[5, 15, 40, 50], [0, 0, 5, 5]]


def test_no_boxes_are_none():
    with pytest.raises(InputError, match=r"have shape \[2, 3\], expected \[n, 4\]"):
        boxes.pairwise(np.zeros((2, 3)), np.zeros((1, 4)))
    assert jax.eval_shape(boxes.pairwise, A[:0], A).shape == (0, 4)


@pytest.fixture(scope="module")
def codes():
    @jax.jit
    def run(anchor, box, points):
        weighted = coding.encode(box, anchor, coding.WEIGHTS)
        sides = coding.distances(points, A)
        return {
            "plain": coding.encode(box, anchor),
            "weighted": weighted,
            "back": coding.decode(weighted, anchor, coding.WEIGHTS),
            "far": coding.decode(np.array([0, 0, 10, 0], np.float32), anchor),
            "padding": coding.encode(0 * box, anchor),
            "sides": sides,
            "at": coding.boxes_at(points, sides),
        }

    points = np.array([[30, 40], [0, 0], [5, 5], [4, 2]], np.float32)
    return jax.device_get(run(A[0], B[0], points))


def test_golden_codes(codes):
    np.testing.assert_allclose(codes["plain"], [0.5, -0.25, 0, -0.1823216], atol=1e-6)
    np.testing.assert_allclose(codes["weighted"], [5, -2.5, 0, -0.9116079], atol=1e-5)
    np.testing.assert_allclose(codes["back"], B[0], rtol=1e-6)
    np.testing.assert_allclose(codes["far"], [-1220, 20, 1280, 80], rtol=1e-6)


def test_codes_of_padding_are_finite(codes):
    assert np.isfinite(codes["padding"]).all()


def test_distances_from_points(codes):
    assert codes["sides"][0].tolist() == [20, 20, 20, 40]
    np.testing.assert_allclose(codes["at"], A)
