import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.vision.detection import anchors

FASTER = [
    *([-84, -40, 99, 55], [-176, -88, 191, 103], [-360, -184, 375, 199]),
    *([-56, -56, 71, 71], [-120, -120, 135, 135], [-248, -248, 263, 263]),
    *([-36, -80, 51, 95], [-80, -168, 95, 183], [-168, -344, 183, 359]),
]


def test_golden_anchors():
    assert anchors.window_anchors().tolist() == FASTER
    of_32 = [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]
    assert anchors.cell_anchors([32]).tolist() == of_32
    octaves = [(32, 40, 50), (64, 80, 101), (128, 161, 203), (256, 322, 406), (512, 645, 812)]
    assert list(anchors.RETINA_SIZES) == octaves


def test_golden_pyramid():
    shapes = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 1)]
    levels = anchors.pyramid_anchors((64, 96), shapes)
    assert [len(level) for level in levels] == [1152, 288, 72, 18, 3]
    assert sum(level.sum(dtype=np.float64) for level in levels) == 227_520
    # Shapes of a position come first, then the next column.
    assert levels[1][3].tolist() == [8 - 45, -23, 8 + 45, 23]
    with pytest.raises(InputError, match="sizes of 5 levels, expected 4"):
        anchors.pyramid_anchors((64, 96), shapes[:4])


def test_which_are_inside():
    some = np.array([[0, 0, 9, 9], [-1, 0, 5, 5], [0, 0, 20, 5]])
    assert anchors.inside(some, 10, 20).tolist() == [True, False, False]
    assert anchors.inside(some, 10, 20, border=1).tolist() == [True, True, True]


def test_clusters_are_found():
    generator = np.random.default_rng(0)
    truth = np.array([[20.0, 30], [90, 60], [60, 200]])
    sizes = np.concatenate([size * generator.uniform(0.95, 1.05, (30, 2)) for size in truth])
    found = anchors.clustered_anchors(sizes, 3)
    np.testing.assert_allclose(found, truth, rtol=0.03)
    assert anchors.mean_best_iou(sizes, found) > 0.93
    with pytest.raises(InputError, match="2 sizes differ"):
        anchors.clustered_anchors(np.array([[1, 2], [3, 4], [1, 2]]), 3)
    with pytest.raises(InputError, match="positive"):
        anchors.clustered_anchors(np.array([[1, 0.0]]), 1)
