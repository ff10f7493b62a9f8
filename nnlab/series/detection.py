r"""How well something was found: precision, recall, F1, and the accuracy of grouping log lines.

With TP things found rightly, FP wrongly, and FN missed,

.. math::
    \mathrm{precision} &= TP / (TP + FP), \quad \mathrm{recall} = TP / (TP + FN),   (1) \\
    F_1 &= 2 TP / (2 TP + FP + FN),                                                 (2)

and 0 where there is nothing to divide by: a detector that finds nothing is not precise.

Precision depends on the share of what there is to find. Where that share is another one in the
field than in a test, with P things to find among P + N, and the false positive rate f = FP / (FP +
TN), it is

.. math:: \mathrm{recall} \cdot P / (\mathrm{recall} \cdot P + f N).                (3)

References:
    Zhu et al., Tools and benchmarks for automated log parsing, ICSE-SEIP 2019, section III-C:
    grouping accuracy.
"""

from collections.abc import Hashable, Iterable
from typing import NamedTuple

import numpy as np

from nnlab.errors import InputError


class Found(NamedTuple):
    """Counts of what was found and what was there."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def precision(self) -> float:
        """Equation (1)."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Equation (1)."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """Equation (2)."""
        errors = self.false_positives + self.false_negatives
        return _share(2 * self.true_positives, 2 * self.true_positives + errors)

    @property
    def false_positive_rate(self) -> float:
        """Of what there was not to find, the share that was found; 0 where there was none."""
        return _share(self.false_positives, self.false_positives + self.true_negatives)

    def among(self, positives: int, negatives: int) -> "Found":
        """The counts to expect of so many things at the same rates, rounded; precision eq. (3)."""
        found = round(self.recall * positives)
        false = round(self.false_positive_rate * negatives)
        return Found(found, false, positives - found, negatives - false)


def found(flagged: np.ndarray, there: np.ndarray) -> Found:
    """Counts of flags [n] against what was there [n], both bool.

    Raises:
        InputError: they are not of one shape, or not bool.
    """
    flagged, there = np.asarray(flagged), np.asarray(there)
    if flagged.shape != there.shape or flagged.dtype != bool or there.dtype != bool:
        raise InputError(
            f"flags are {flagged.dtype} {list(flagged.shape)} and truths {there.dtype}"
            f" {list(there.shape)}, expected bool of one shape."
        )
    pairs = [(flagged, there), (flagged, ~there), (~flagged, there), (~flagged, ~there)]
    return Found(*(int((a & b).sum()) for a, b in pairs))


def grouping_accuracy(groups: Iterable[Hashable], labels: Iterable[Hashable]) -> float:
    """The share of lines whose group holds exactly the lines of one label; 0 of no lines."""
    pairs = list(zip(groups, labels, strict=True))
    of_group: dict[Hashable, list[int]] = {}
    of_label: dict[Hashable, list[int]] = {}
    for line, (group, label) in enumerate(pairs):
        of_group.setdefault(group, []).append(line)
        of_label.setdefault(label, []).append(line)
    right = sum(of_group[group] == of_label[label] for group, label in pairs)
    return _share(right, len(pairs))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
