"""Files of arrays: containers with digests, packing, and the weights of other frameworks."""

from nnlab.files.borrowing import borrow, lend
from nnlab.files.saved import SavedModel
from nnlab.files.state_dicts import read_state_dict

__all__ = [
    "SavedModel",
    "borrow",
    "lend",
    "read_state_dict",
]
