"""When to stop early, from the history of a metric that should grow."""

import math
from collections.abc import Sequence

from nnlab.errors import InputError


def stopped_improving(values: Sequence[float], patience: int, min_delta: float = 0.0) -> bool:
    """Whether the last improvement is more than `patience` values ago.

    A value improves when it is above the best so far by more than `min_delta`; the first number
    does, a NaN never. For a loss pass the negative values. An empty history has not stopped.

    It is `flax.training.early_stopping.EarlyStopping` on the negative values, with which it first
    agrees to stop at the same value as long as all are finite; Flax would remember a first NaN as
    the best for good.

    Args:
        values: one an epoch, such as `history["test_accuracy"]`.
        patience: how many values in a row may fail to improve, 0 or more.
        min_delta: in the unit of the values, 0 or more.

    Raises:
        InputError: `patience` is not an integer from 0, or `min_delta` not a finite number from 0.
    """
    if not (isinstance(patience, int) and patience >= 0):
        raise InputError(f"patience must be an integer of at least 0, not {patience}.")
    if not 0 <= min_delta < math.inf:
        raise InputError(f"min_delta must be a finite number of at least 0, not {min_delta}.")
    best, waiting = -math.inf, 0
    for value in values:
        waiting += 1
        if value - best > min_delta:
            best, waiting = value, 0
    return waiting > patience
