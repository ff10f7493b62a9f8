"""The one axis that all arrays of a batch share."""

from typing import Any

import jax
import numpy as np
import pytest

from nnlab.data.batches import shared_size
from nnlab.errors import InputError


@pytest.mark.parametrize(
    "tree",
    [
        np.zeros(4),
        (np.zeros((4, 2)), np.zeros(4, bool)),
        {"ids": np.zeros((4, 3), np.int32), "labels": [np.zeros(4)], "none": None},
        jax.ShapeDtypeStruct((4, 1), np.float32),
        jax.random.split(jax.random.key(0), 4),
    ],
)
def test_the_size_is_that_of_every_array(tree):
    assert shared_size(tree) == 4


def test_another_axis():
    assert shared_size((np.zeros((2, 5)), np.zeros((3, 5, 1))), axis=1) == 5


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ((np.zeros(4), {"mask": np.zeros(3)}), r"\[0\] has 4 .*\[1\]\['mask'\] has 3"),
        ((np.zeros(4), np.zeros(())), r"axis 0, but batch\[1\] has shape \[\]"),
        ((), "at least one array"),
        ((np.zeros((0, 3)), np.zeros(0)), r"batch\[0\] has shape \[0, 3\]: no examples\.$"),
        ((np.zeros(4), np.array(list("abcd"))), r"batch\[1\] holds <U1, expected numbers"),
        ((np.zeros(4), np.array([None] * 4)), r"batch\[1\] holds object, expected numbers"),
    ],
)
def test_other_trees_are_refused(tree: Any, message):
    with pytest.raises(InputError, match=message):
        shared_size(tree)
