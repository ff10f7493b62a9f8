"""Data sets as every source returns them, and the checks that data must pass before training.

A data set is two splits of uint8 images, as they are at rest; `nnlab.vision.transforms` turns them
into the floating-point arrays that a network trains on, and `check_arrays` says in one sentence
what is wrong with such arrays before a training run spends an hour on them. A split that memory
cannot hold is `Records`, which are read when they are asked for.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.data.access import RandomAccess
from nnlab.data.batches import check_channels_last, hint_of_classes
from nnlab.errors import InputError

DIGIT_NAMES = tuple("0123456789")


class Split(NamedTuple):
    """Images and their classes: `images` uint8 [n, height, width, channels], `labels` int32 [n]."""

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """A named data set: what to fit, what to measure on, and the classes.

    Attributes:
        name: as in `nnlab.vision.load`.
        train, test: images and labels.
        classes: number of classes; labels are below it.
        class_names: their names, or nothing where they have none.
        test_files: those that the test images came from, or nothing where they have none.
    """

    name: str
    train: Split
    test: Split
    classes: int
    class_names: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()


class Records(RandomAccess, Protocol):
    """One split on disk; it pickles without its content, so that worker processes open it again."""

    @property
    def classes(self) -> int:
        """Number of classes; labels are below it."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, or nothing where they have none."""
        ...

    def gather(self, indices: Sequence[int] | np.ndarray) -> Split:
        """Return several records at once, in the order of the indices."""
        ...


def checked_split(images: np.ndarray, labels: np.ndarray, classes: int, source: object) -> Split:
    """Join what a source holds into a `Split`.

    Args:
        images: uint8 [n, height, width, channels].
        labels: integers [n].
        classes: labels must be below it.
        source: the file or folder that the error names.

    Raises:
        InputError: there are no images, not one label an image, or a label out of range.
    """
    if images.size == 0:
        raise InputError(f"{source} holds images of shape {images.shape}, expected at least one")
    _check_labels(labels, len(images), classes, f"{source}: ")
    return Split(images, labels.astype(np.int32))


def check_arrays(
    images: np.ndarray | jax.Array, labels: np.ndarray | jax.Array, classes: int
) -> None:
    """Check that a network with `classes` outputs can be trained on these arrays.

    Args:
        images: floating point [n, height, width, channels], every pixel finite.
        labels: integers [n] in [0, classes).
        classes: the number of outputs of the network.

    Raises:
        InputError: the first of these that does not hold, with the offending value and its place.
    """
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(
            f"images are {images.dtype}, expected floating point: "
            "normalise them first, with nnlab.vision.to_float and nnlab.vision.standardize"
        )
    if images.ndim != 4:
        raise InputError(f"images have shape {images.shape}, expected [n, height, width, channels]")
    check_channels_last(images.shape)
    if images.size == 0:
        raise InputError(f"images have shape {images.shape}, expected at least one image")
    finite = np.asarray(jnp.isfinite(images))
    if not finite.all():
        first = tuple(int(i) for i in np.unravel_index(np.argmin(finite), finite.shape))
        raise InputError(f"pixel {list(first)} of images is {images[first]}, expected it finite")
    _check_labels(labels, len(images), classes, "")


def _check_labels(labels: np.ndarray | jax.Array, n: int, classes: int, source: str) -> None:
    if labels.shape != (n,):
        hint = hint_of_classes(labels, 1)
        raise InputError(
            f"{source}labels have shape {labels.shape}, expected ({n},), one an image{hint}"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise InputError(f"{source}labels are {labels.dtype}, expected integers")
    values = np.asarray(labels)
    wrong = (values < 0) | (values >= classes)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise InputError(f"{source}label {first} is {values[first]}, expected 0 to {classes - 1}")
