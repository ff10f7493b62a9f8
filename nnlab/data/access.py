"""What a stream reads from: examples by number."""

from typing import Protocol

import numpy as np


class RandomAccess(Protocol):
    """Images and their classes by number: a random access data source, as grain calls it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """An image, uint8 [height, width, channels], and its class."""
        ...
