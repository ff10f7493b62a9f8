"""Examples set aside for validation: a fixed part, drawn by a seed, class by class.

Whatever is chosen during a training (the best epoch, when to stop, a learning rate) is chosen on
these, so that the test set, measured once at the end, has chosen nothing.
"""

import dataclasses
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nnlab.data.batches import shared_size
from nnlab.errors import InputError

_AT_ONCE = 256  # records whose labels are read at once


class Parts(NamedTuple):
    """Two parts of one set, arrays or records as the set itself was."""

    train: Any
    validation: Any


def hold_out(data: Any, share: float, *, seed: int = 0) -> Parts:
    """Split training data into two: what is trained on, and a share for validation.

        train, validation = hold_out((images, labels), 0.1)
        fit(…, in_memory(train, 64), test, validation=validation)

    Both keep the order of the data. Labels that are classes, integers [examples], lose the same
    share each, rounded, but at least one example where a class has two or more.

    Args:
        data: (inputs, labels), arrays [examples, ...] or trees of them; or records that are read by
            number (`nnlab.data.RandomAccess`), whose labels are read once to tell the classes, or
            taken from their attribute `labels`.
        share: the part to set aside, between 0 and 1.
        seed: draws it.

    Returns:
        (train, validation): arrays, or `Subset`s of the records.

    Raises:
        InputError: the share is not between 0 and 1, or leaves either part without an example; or
            the arrays differ in their number of examples.
    """
    if isinstance(data, tuple):
        labels = data[1] if hasattr(data[1], "shape") else None
        parts = drawn(shared_size(data), labels, share, seed)
        return Parts(*(jax.tree.map(operator.itemgetter(part), data) for part in parts))
    kind = GatheredSubset if hasattr(data, "gather") else Subset
    return Parts(*(kind(data, part) for part in drawn(len(data), labels_of(data), share, seed)))


def drawn(examples: int, labels: Any, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the examples to train on and to validate on, each in order.

    Args:
        examples: how many there are.
        labels: their classes, integers [examples]; anything else is drawn without regard to it.
        share, seed: as for `hold_out`.

    Raises:
        InputError: as for `hold_out`.
    """
    if not 0 < share < 1:
        raise InputError(f"the share to validate on is {share}, expected between 0 and 1.")
    classes = np.zeros(examples, np.int64) if labels is None else np.asarray(labels)
    if classes.shape != (examples,) or classes.dtype.kind not in "iu":
        classes = np.zeros(examples, np.int64)
    held = np.zeros(examples, bool)
    for name in np.unique(classes):
        members = np.flatnonzero(classes == name)
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        key = [seed, abs(int(name)), int(name < 0)]
        held[np.random.default_rng(key).permutation(members)[:count]] = True
    if not held.any():
        raise InputError(
            f"{examples} examples, one a class, leave none to validate on; expected two or more of"
            " a class."
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


def labels_of(records: Any) -> np.ndarray | None:
    """Return the classes of records, int [records], or None where their labels are no classes."""
    if hasattr(records, "labels"):
        return np.asarray(records.labels)
    found = []
    gather = getattr(records, "gather", None)
    for start in range(0, len(records), _AT_ONCE):
        some = range(start, min(start + _AT_ONCE, len(records)))
        labels = gather(some)[1] if gather else [records[i][1] for i in some]
        if isinstance(labels, dict) or any(np.ndim(label) for label in labels):
            return None
        found.append(np.asarray(labels))
    return np.concatenate(found) if found else None


@dataclasses.dataclass(frozen=True)
class Subset:
    """Some records of another source, by their numbers."""

    source: Any
    chosen: np.ndarray

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.source[int(self.chosen[index])]


class GatheredSubset(Subset):
    """Some records of a source that reads several at once."""

    def gather(self, indices: Sequence[int] | np.ndarray) -> Any:
        return self.source.gather(self.chosen[np.asarray(indices)])
