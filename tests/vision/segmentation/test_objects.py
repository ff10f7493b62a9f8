"""Objects in masks, by hand."""

import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.vision.segmentation import ObjectsFound, connected_objects, objects_found

MASK = np.array(
    [
        [1, 1, 0, 0, 7],
        [1, 0, 0, 0, 7],
        [0, 1, 0, 0, 0],  # touches the first by a corner alone
        [0, 0, 0, 1, 1],
    ]
)


def test_parts_that_share_a_side_are_one_object():
    found = connected_objects(MASK)
    np.testing.assert_array_equal(
        found, [[1, 1, 0, 0, 2], [1, 0, 0, 0, 2], [0, 3, 0, 0, 0], [0, 0, 0, 4, 4]]
    )
    np.testing.assert_array_equal(
        connected_objects(MASK, least=2),
        [[1, 1, 0, 0, 2], [1, 0, 0, 0, 2], [0, 0, 0, 0, 0], [0, 0, 0, 3, 3]],
    )
    assert not connected_objects(np.zeros((2, 2))).any()


def test_pairs_by_hand():
    real = np.array([[1, 1, 1, 0, 2, 2, 0, 3]])
    found = np.array([[5, 5, 0, 0, 8, 0, 9, 0]])  # IoU 2/3, exactly 1/2, and none
    assert objects_found([(real, found)]) == ObjectsFound(pairs=1, false=2, missed=2)
    assert objects_found([(real, found)]).f1 == pytest.approx(2 / 6)
    both = objects_found([(real, found), (real, real)])
    assert both == (4, 2, 2) and both.f1 == pytest.approx(8 / 12)
    # Two nuclei that are found as one: it covers 3/5 of itself with the larger.
    assert objects_found([(np.array([[1, 1, 1, 2, 2]]), np.ones((1, 5), int))]) == (1, 0, 1)


def test_nothing_there_and_what_does_not_fit():
    empty = np.zeros((2, 2), int)
    assert objects_found([(empty, empty)]) == (0, 0, 0)
    assert np.isnan(objects_found([]).f1)
    with pytest.raises(InputError, match=r"found objects have shape \[2, 1\]"):
        objects_found([(empty, empty[:, :1])])
    with pytest.raises(InputError, match=r"threshold is 0\.3, expected 0\.5 to 1\."):
        objects_found([], 0.3)
