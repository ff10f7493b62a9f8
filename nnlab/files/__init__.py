"""Files of arrays: containers with digests, packing, and the weights of other frameworks."""

from nnlab.files.borrowing import borrow, lend
from nnlab.files.saved import SavedModel
from nnlab.files.state_dicts import read_state_dict, write_state_dict
from nnlab.files.weights import load_weights, save_weights

__all__ = [
    "SavedModel",
    "borrow",
    "lend",
    "load_weights",
    "read_state_dict",
    "save_weights",
    "write_state_dict",
]
