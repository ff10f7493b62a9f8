"""Batches from disk, found or downloaded; what one domain reads is in its wing."""

from nnlab._moved import forward
from nnlab.data.access import RandomAccess
from nnlab.data.stream import Stream, to_device

__all__ = [
    "RandomAccess",
    "Stream",
    "to_device",
]

__getattr__ = forward(__name__)
