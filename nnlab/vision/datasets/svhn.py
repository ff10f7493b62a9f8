"""Street View House Numbers in its cropped format, from its two MATLAB files.

Each file holds X, uint8 [32, 32, 3, n], and y [n, 1], in which 10 is the digit 0. SciPy, which jax
brings along, reads them.

Reference:
    Netzer et al., Reading digits in natural images with unsupervised feature learning, NIPS
    workshop 2011, http://ufldl.stanford.edu/housenumbers; the MD5 sums are torchvision's.
"""

import os
from pathlib import Path

import numpy as np

from nnlab.data.locate import Source, locate
from nnlab.errors import InputError
from nnlab.paths import reading
from nnlab.vision.datasets.dataset import DIGIT_NAMES, Dataset, Split, checked_split

FILES = "train_32x32.mat", "test_32x32.mat"

SVHN = Source(
    name="svhn",
    folders=("svhn", "SVHN"),
    file_sets=(FILES,),
    mirrors=("http://ufldl.stanford.edu/housenumbers/",),
    md5={
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    },
)


def load_svhn(data_dir: str | os.PathLike | None = None) -> Dataset:
    """Read SVHN, downloading it into the cache if it is not found.

    Returns:
        73,257 and 26,032 images [32, 32, 3] where the files are the published ones; label 0 is the
        digit 0.

    Raises:
        InputError: it is not found and cannot be downloaded, or a file is not what it should be.
    """
    train, test = map(_read, locate(SVHN, data_dir))
    return Dataset(SVHN.name, train, test, len(DIGIT_NAMES), DIGIT_NAMES)


def _read(path: Path) -> Split:
    from scipy import io

    with reading(path):
        path.open("rb").close()
    try:
        found = io.loadmat(path)
        images, labels = found["X"], np.ravel(found["y"])
    except Exception as error:  # of a damaged file, almost anything
        raise InputError(f"{path} is not a MATLAB file with X and y: {error!r}.") from error
    if images.ndim != 4 or images.shape[2] != 3 or images.dtype != np.uint8:
        raise InputError(
            f"{path} holds X as {images.dtype} {list(images.shape)}, expected uint8 "
            "[height, width, 3, images]."
        )
    if labels.size and (labels.min() < 1 or labels.max() > 10):
        raise InputError(
            f"{path} holds labels from {labels.min()} to {labels.max()}, expected 1 to 10, where "
            "10 is the digit 0."
        )
    images = np.ascontiguousarray(images.transpose(3, 0, 1, 2))
    return checked_split(images, labels.astype(np.int32) % 10, len(DIGIT_NAMES), path)
