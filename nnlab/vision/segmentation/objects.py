r"""Objects in a mask, and how many of them are found.

An object that is found has an IoU above a threshold with one that is there; above one half no
object has two partners. With TP pairs, FP found objects and FN real ones without a partner,

.. math:: F_1 = \frac{2\,TP}{2\,TP + FP + FN}.                                   (1)

References:
    Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl,
    Nature Methods 16, 2019, https://doi.org/10.1038/s41592-019-0612-7.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from nnlab.errors import InputError


class ObjectsFound(NamedTuple):
    """Objects of a set of images, counted.

    Attributes:
        pairs: found objects with a real partner, TP.
        false: found objects without one, FP.
        missed: real objects without one, FN.
    """

    pairs: int
    false: int
    missed: int

    @property
    def f1(self) -> float:
        """(1), from 0 to 1; NaN where there is no object and none is found."""
        total = 2 * self.pairs + self.false + self.missed
        return 2 * self.pairs / total if total else float("nan")


def connected_objects(mask: np.ndarray, *, least: int = 1) -> np.ndarray:
    """Number the connected parts of a mask from 1, int32 [height, width]; 0 is background.

    Args:
        mask: what is not 0 is an object, [height, width]; neighbours share a side.
        least: pixels of the smallest object that counts.
    """
    from scipy import ndimage  # comes with JAX; some tenths of a second to import

    numbers = np.zeros(np.shape(mask), np.int32)
    ndimage.label(np.asarray(mask) != 0, output=numbers)
    sizes = np.bincount(numbers.ravel())
    kept = sizes >= least
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[numbers]


def objects_found(
    images: Iterable[tuple[np.ndarray, np.ndarray]], threshold: float = 0.5
) -> ObjectsFound:
    """Count the objects of images that are found.

    Args:
        images: of each the real objects and the found ones, integers [height, width], a number for
            each object and 0 for background.
        threshold: the IoU above which objects are partners, at least 1/2.

    Raises:
        InputError: the threshold is less or above 1, or an image's arrays have different shapes.
    """
    if not 0.5 <= threshold <= 1:
        raise InputError(f"threshold is {threshold}, expected 0.5 to 1.")
    counts = np.zeros(3, int)
    for real, found in images:
        if np.shape(real) != np.shape(found):
            raise InputError(
                f"found objects have shape {list(np.shape(found))}, expected that of the real ones,"
                f" {list(np.shape(real))}."
            )
        (a, of_real), (b, of_found) = (
            np.unique(np.append(0, each), return_inverse=True) for each in (real, found)
        )
        shared = np.zeros((len(a), len(b)), int)
        np.add.at(shared, (of_real.ravel()[1:], of_found.ravel()[1:]), 1)
        union = shared.sum(1, keepdims=True) + shared.sum(0) - shared
        pairs = int((shared[1:, 1:] > threshold * union[1:, 1:]).sum())
        counts += pairs, len(b) - 1 - pairs, len(a) - 1 - pairs
    return ObjectsFound(*counts.tolist())
