"""Early stopping, as a function of what the epochs have come to."""

from collections.abc import Sequence

import numpy as np


def stopped_improving(values: Sequence[float], patience: int, min_delta: float = 0.0) -> bool:
    return len(values) - 1 - int(np.argmax(values)) >= patience if len(values) else False
