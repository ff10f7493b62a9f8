"""What a stream reads from: examples by number."""

from typing import Any, Protocol


class RandomAccess(Protocol):
    """Examples and their labels by number: a random access data source, as grain calls it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """An example and its label, such as an image, uint8 [height, width, channels], and its
        class; either may be any tree of arrays and numbers."""
        ...
