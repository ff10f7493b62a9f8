"""Examples set aside: the same share of each class, none lost, always the same."""

import pickle

import numpy as np
import pytest

from nnlab.data import Stream, hold_out
from nnlab.data.holding_out import Subset
from nnlab.errors import InputError

LABELS = np.repeat([0, 1, 2, 3], [40, 20, 3, 1])
IMAGES = np.arange(64.0)[:, None]


class Records:
    """Records whose label is the class, with or without a way to read many."""

    def __len__(self):
        return 64

    def __getitem__(self, index):
        return IMAGES[index], int(LABELS[index])


class Gathered(Records):
    def gather(self, indices):
        return IMAGES[indices], LABELS[indices]


def test_each_class_gives_its_share():
    train, validation = hold_out((IMAGES, LABELS), 0.1)
    assert np.bincount(validation[1], minlength=4).tolist() == [4, 2, 1, 0]
    both = np.concatenate([train[0], validation[0]])
    assert sorted(both[:, 0]) == list(range(64))
    for images, labels in (train, validation):
        assert (np.diff(images[:, 0]) > 0).all()
        np.testing.assert_array_equal(LABELS[images[:, 0].astype(int)], labels)
    again, other = (hold_out((IMAGES, LABELS), 0.1, seed=seed)[1][0] for seed in (0, 1))
    np.testing.assert_array_equal(again, validation[0])
    assert (other != again).any()


@pytest.mark.parametrize("source", [Records(), Gathered()])
def test_records_are_split_as_arrays_are(source):
    train, validation = hold_out(source, 0.1)
    arrays = hold_out((IMAGES, LABELS), 0.1)
    for part, (images, labels) in zip((train, validation), arrays, strict=True):
        part = pickle.loads(pickle.dumps(part))
        read = [part[i] for i in range(len(part))]
        np.testing.assert_array_equal([image for image, _ in read], images)
        np.testing.assert_array_equal([label for _, label in read], labels)
    with_all, labels = next(Stream(train, len(train), 0).batches())
    assert sorted(with_all[:, 0]) == arrays[0][0][:, 0].tolist()
    assert isinstance(train, Subset) and hasattr(train, "gather") == hasattr(source, "gather")


def test_labels_that_are_no_classes_are_drawn_from_all():
    tree = {"x": IMAGES}, {"mask": LABELS > 0, "next": IMAGES}
    train, validation = hold_out(tree, 0.25)
    assert len(validation[0]["x"]) == len(validation[1]["mask"]) == 16
    assert len(train[1]["next"]) == 48
    assert len(hold_out((IMAGES, IMAGES[:, 0]), 0.25)[1][0]) == 16


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(InputError, match="the share to validate on is"):
        hold_out((IMAGES, LABELS), share)


def test_nothing_to_validate_on():
    with pytest.raises(InputError, match="4 examples, one a class, leave none"):
        hold_out((IMAGES[:4], np.arange(4)), 0.5)
