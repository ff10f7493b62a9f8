"""The interface of a data set that `nnlab.data.Stream` can read: examples by number."""

from typing import Any, Protocol


class RandomAccess(Protocol):
    """A data set whose examples are read by number, grain's `RandomAccessDataSource`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return an example and its label, such as an image, uint8 [height, width, channels], and
        its class; each may be any tree of arrays and numbers."""
        ...
