r"""The score of the Numenta Anomaly Benchmark (NAB): early detections count, late ones less.

A detector gives every row of every series a score, and a row whose score is at least the threshold,
one for the whole corpus, is a detection. The labels are windows of rows around each anomaly. With
the sigmoid

.. math:: \sigma(y) = 2 / (1 + e^{5 y}) - 1                                              (1)

a window of w rows that ends in row r gives, for a detection in its row i, :math:`y = (i - r - 1) /
w`, which is -1 in its first row:

.. math:: A_{TP} \, \sigma(y) / \sigma(-1)                                               (2)

of which only the greatest counts, or :math:`-A_{FN}` if it has no detection. Every detection
outside of windows costs, with :math:`y = (i - r) / (w - 1)` after the last window,

.. math:: A_{FP} \, \sigma(y), \quad A_{FP} \, (-1) \text{ for } y > 3
          \text{ and before the first window.}                                           (3)

The first min(15 % of the rows, 750) of each series are its probation: nothing there is scored, and
a detector may learn from it. The raw score is the sum over the corpus, and the normalised one

.. math:: 100 \, (raw - null) / (perfect - null)                                         (4)

where null finds nothing, :math:`-A_{FN}` a window, and perfect finds every window in its first row
and no more, :math:`A_{TP}` a window. The threshold is that of the best raw score, chosen on the
corpus itself, separately for each profile of weights A.

References:
    Lavin & Ahmad, Evaluating real-time anomaly detection algorithms: the Numenta Anomaly Benchmark,
    ICMLA 2015, https://arxiv.org/abs/1510.03336; the offsets of a row in (2) and (3) are those of
    https://github.com/numenta/NAB, nab/sweeper.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nnlab.errors import InputError


class Profile(NamedTuple):
    """The weights A of a window found, a window missed and a detection outside of windows."""

    true_positive: float
    false_negative: float
    false_positive: float


STANDARD = Profile(1.0, 1.0, 0.11)
REWARD_LOW_FP = Profile(1.0, 1.0, 0.22)
REWARD_LOW_FN = Profile(1.0, 2.0, 0.11)
PROFILES = {
    "standard": STANDARD,
    "reward_low_fp": REWARD_LOW_FP,
    "reward_low_fn": REWARD_LOW_FN,
}


class Scored(NamedTuple):
    """The scores of a series, and the anomalies that there were to find.

    Attributes:
        scores: [rows], finite; larger is more anomalous.
        windows: first and last row of each anomaly; in order, without overlap.
    """

    scores: ArrayLike
    windows: Sequence[tuple[int, int]]


class Sweep(NamedTuple):
    """Raw scores of a corpus at every threshold that makes a difference.

    Attributes:
        thresholds: float64 [n], falling; the first is infinity, where nothing is detected.
        raw: float64 [n].
        windows: the number of windows that can be found.
    """

    thresholds: np.ndarray
    raw: np.ndarray
    windows: int

    def best(self) -> tuple[float, float]:
        """Return the (highest) threshold of the greatest raw score, and this score."""
        place = int(np.argmax(self.raw))
        return float(self.thresholds[place]), float(self.raw[place])

    def at(self, threshold: float) -> float:
        """Return the raw score at any threshold, such as one chosen on another corpus."""
        rank = int(np.searchsorted(-self.thresholds, -threshold, side="right")) - 1
        return float(self.raw[rank])


def sigmoid(y: ArrayLike) -> np.ndarray:
    """Equation (1) in float64: 0.98661 at -1, 0.84828 at -1/2, 0 at 0."""
    return 2.0 / (1.0 + np.exp(5.0 * np.asarray(y, np.float64))) - 1.0  # (1)


def probation(rows: int) -> int:
    """Return how many of the rows of a series, at its start, are not scored."""
    return min(rows * 15 // 100, 750)


def row_values(rows: int, windows: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Compute what a detection in each row is worth, unweighted, and in which window the row is.

    Returns:
        float64 [rows], equation (2) without its A_TP inside of windows, (3) without its A_FP
        outside; and int [rows], the number of the window, or -1.

    Raises:
        InputError: a window has no row, is not within the series or does not follow the one before.
    """
    values, member = np.full(rows, -1.0), np.full(rows, -1)
    end = -1
    for number, (first, last) in enumerate(windows):
        if not end < first <= last < rows:
            raise InputError(
                f"Window {number} is from row {first} to row {last}, expected one within the"
                f" {rows} rows of the series and after row {end}, the last of the one before."
            )
        width, end = last - first + 1, last
        inside = np.arange(first, last + 1)
        values[inside] = sigmoid((inside - last - 1) / width) / sigmoid(-1)  # (2)
        member[inside] = number
        after = np.arange(last + 1, rows)
        past = (after - last) / (width - 1) if width > 1 else np.full(after.size, np.inf)
        near = past <= 3
        values[after] = -1.0
        values[after[near]] = sigmoid(past[near])  # (3); a later window overwrites its own rows
    return values, member


def sweep(corpus: Sequence[Scored], profile: Profile = STANDARD) -> Sweep:
    """Compute the raw score at every threshold, from one sort of all the rows.

    In the order of falling scores, a row outside of windows adds its (3), and a row in a window
    adds the amount by which it raises the best of that window.

    Raises:
        InputError: there is no row to score, a score is not finite, or a window is not right.
    """
    scores, gains, windows = [], [], 0
    for number, (given, limits) in enumerate(corpus):
        series = np.asarray(given, np.float64)
        if series.ndim != 1 or not np.isfinite(series).all():
            bad = int(np.sum(~np.isfinite(series)))
            raise InputError(
                f"Series {number} has scores of shape {series.shape}, {bad} of them not finite;"
                " expected one finite number for each row."
            )
        start = probation(series.size)
        values, member = row_values(series.size, limits)
        series, values, member = series[start:], values[start:], member[start:]
        gain = profile.false_positive * values  # of rows in windows it is overwritten
        for window in np.unique(member[member >= 0]):
            rows = np.flatnonzero(member == window)
            rows = rows[np.argsort(-series[rows], kind="stable")]
            best = np.maximum.accumulate(profile.true_positive * values[rows])
            gain[rows] = np.diff(best, prepend=-profile.false_negative)
            windows += 1
        scores.append(series)
        gains.append(gain)
    if not sum(map(len, scores)):
        raise InputError(f"{len(scores)} series without a row after probation were given to score")
    scores, gains = np.concatenate(scores), np.concatenate(gains)
    order = np.argsort(-scores, kind="stable")
    scores, raw = scores[order], np.cumsum(gains[order]) - profile.false_negative * windows
    last = np.append(scores[1:] != scores[:-1], True)  # equal scores are detected together
    thresholds = np.concatenate([[np.inf], scores[last]])
    return Sweep(thresholds, np.append(-profile.false_negative * windows, raw[last]), windows)


def raw_scores(
    corpus: Sequence[Scored], threshold: float, profile: Profile = STANDARD
) -> np.ndarray:
    """Compute the raw score of each series, float64 [series]; their sum is that of the corpus.

    Raises:
        InputError: as `sweep`.
    """
    return np.array([sweep([series], profile).at(threshold) for series in corpus])


def normalized(raw: float, windows: int, profile: Profile = STANDARD) -> float:
    """Equation (4): 0 for a detector that finds nothing, 100 for one that is perfect.

    Raises:
        InputError: there is no window, so that perfect and null are the same.
    """
    if windows < 1:
        raise InputError(f"A corpus of {windows} windows has no normalised score, expected some.")
    null, perfect = -profile.false_negative * windows, profile.true_positive * windows
    return 100.0 * (raw - null) / (perfect - null)  # (4)
