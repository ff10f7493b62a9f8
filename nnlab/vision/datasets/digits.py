"""The UCI handwritten digits that scikit-learn carries: 1,797 images of 8×8 pixels, no download.

Reference:
    Alpaydin and Kaynak, Optical recognition of handwritten digits, UCI Machine Learning
    Repository, 1998, https://doi.org/10.24432/C50P49.
"""

import numpy as np

from nnlab.errors import needs
from nnlab.vision.datasets.dataset import DIGIT_NAMES, Dataset, Split

TEST_IMAGES = 360


def load_digits() -> Dataset:
    """Read the digits.

    A stored value v of 0 to 16 becomes the pixel round(255 v / 16), where only v = 8 is a tie, at
    127.5, and becomes 128. The data set has no test set of its own, so images are put in the
    order of `numpy.random.RandomState(0).permutation(1797)`, whose stream NumPy has frozen, and
    the last 360 are held out.

    Returns:
        1,437 and 360 images [8, 8, 1].
    """
    with needs("data"):
        from sklearn import datasets

    values, labels = datasets.load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(labels))
    images = np.rint(values * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)[order]
    labels = labels.astype(np.int32)[order]
    return Dataset(
        "digits",
        Split(images[:-TEST_IMAGES], labels[:-TEST_IMAGES]),
        Split(images[-TEST_IMAGES:], labels[-TEST_IMAGES:]),
        classes=10,
        class_names=DIGIT_NAMES,
    )
