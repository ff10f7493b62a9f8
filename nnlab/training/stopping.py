"""Early stopping, as a function of what the epochs have come to."""

from collections.abc import Sequence


def stopped_improving(values: Sequence[float], patience: int, min_delta: float = 0.0) -> bool:
    raise NotImplementedError
