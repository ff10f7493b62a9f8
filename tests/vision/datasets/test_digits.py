"""The digits that come with scikit-learn."""

import numpy as np
from sklearn import datasets

from nnlab.vision.datasets.digits import load_digits


def test_split_is_fixed_and_complete():
    data = load_digits()
    assert (data.name, data.classes) == ("digits", 10)
    assert data.train.images.shape == (1437, 8, 8, 1) and data.test.images.shape == (360, 8, 8, 1)
    assert data.train.images.dtype == np.uint8 and data.train.labels.dtype == np.int32
    # The permutation comes from a stream that NumPy has frozen: these never change.
    assert np.bincount(data.test.labels).tolist() == [31, 35, 39, 33, 44, 29, 40, 40, 28, 41]
    assert data.train.labels[:8].tolist() == [2, 8, 2, 6, 6, 7, 1, 9]
    for first, again in zip(data.train, load_digits().train, strict=True):
        np.testing.assert_array_equal(first, again)


def test_pixels_are_the_stored_values_scaled():
    data = load_digits()
    values, labels = datasets.load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(1797)
    images = np.concatenate([data.train.images, data.test.images])[..., 0]
    # Worked by hand: 15.9375 is rounded up, and 127.5 to the even 128.
    for value, pixel in {0: 0, 1: 16, 2: 32, 4: 64, 8: 128, 15: 239, 16: 255}.items():
        np.testing.assert_array_equal(images == pixel, (values == value).reshape(-1, 8, 8)[order])
    np.testing.assert_array_equal(
        np.concatenate([data.train.labels, data.test.labels]), labels[order]
    )
