"""Alarms: rows whose score is high, and the threshold that gives as many as are wanted.

Rows whose score is at least the threshold are one alarm if they are less than `apart` rows apart:
an anomaly that lasts is reported once.
"""

import numpy as np

from nnlab.errors import InputError


def alarms(scores: np.ndarray, threshold: float, apart: int = 1) -> int:
    """Count the alarms in scores [rows]; nan gives none."""
    places = np.flatnonzero(scores >= threshold)
    return int(len(places) and 1 + np.sum(np.diff(places) >= max(apart, 2)))


def threshold_for(scores: np.ndarray, most: float, apart: int = 1) -> float:
    """Choose the lowest score that gives at most `most` alarms, as all scores above it do.

    Args:
        scores: [rows], of normal rows; nan is skipped.
        most: how many alarms are allowed.
        apart: rows between two alarms.

    Returns:
        The threshold; the greatest score if even that gives more alarms.

    Raises:
        InputError: there is no score but nan.
    """
    found = np.unique(scores[~np.isnan(scores)])[::-1]
    if not found.size:
        raise InputError(
            f"none of {len(scores)} rows has a score, expected some to choose a threshold from."
        )
    chosen = found[0]
    for threshold in found:
        if alarms(scores, threshold, apart) > most:
            break
        chosen = threshold
    return float(chosen)
