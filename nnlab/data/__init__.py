"""Batches of data sets larger than memory; the data sets of one domain are in its wing."""

from nnlab._moved import forward
from nnlab.data.access import RandomAccess
from nnlab.data.holding_out import hold_out
from nnlab.data.stream import Stream, to_device

__all__ = [
    "RandomAccess",
    "Stream",
    "hold_out",
    "to_device",
]

__getattr__ = forward(__name__)
