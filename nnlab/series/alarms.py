"""Alarms: rows whose score is high, and the threshold that gives as many as are wanted.

Rows with a score of at least the threshold that are less than `apart` rows apart are one alarm: a
thing that lasts is told once.
"""

import numpy as np

from nnlab.errors import InputError


def alarms(scores: np.ndarray, threshold: float, apart: int = 1) -> int:
    """How many alarms the scores [rows] give; nan gives none."""
    places = np.flatnonzero(scores >= threshold)
    return int(len(places) and 1 + np.sum(np.diff(places) >= max(apart, 2)))


def threshold_for(scores: np.ndarray, most: float, apart: int = 1) -> float:
    """The least score that is a threshold with at most so many alarms, as are all above it.

    Args:
        scores: [rows], of rows that are as they should be; nan is passed over.
        most: alarms that may come.
        apart: rows between two alarms.

    Returns:
        The greatest score where even that gives more.

    Raises:
        InputError: there is no score but nan.
    """
    found = np.unique(scores[~np.isnan(scores)])[::-1]
    if not found.size:
        raise InputError(f"there are {len(scores)} rows and no score to choose a threshold from.")
    chosen = found[0]
    for threshold in found:
        if alarms(scores, threshold, apart) > most:
            break
        chosen = threshold
    return float(chosen)
