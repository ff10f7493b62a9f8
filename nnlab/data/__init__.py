"""Data sets on disk in; checked, scaled and augmented arrays out."""

from nnlab.data.augment import random_crop, random_crop_and_flip, random_flip
from nnlab.data.dataset import Dataset, RandomAccess, Records, Split, check_arrays
from nnlab.data.sources import load, record_source
from nnlab.data.state_dicts import read_state_dict
from nnlab.data.stream import Stream, to_device
from nnlab.data.transforms import (
    Whitening,
    channel_statistics,
    decorrelate,
    fit_whitening,
    pad_to,
    pca_whiten,
    record_statistics,
    standardize,
    standardized,
    standardizer,
    to_float,
    zca_whiten,
)

__all__ = [
    "Dataset",
    "RandomAccess",
    "Records",
    "Split",
    "Stream",
    "Whitening",
    "channel_statistics",
    "check_arrays",
    "decorrelate",
    "fit_whitening",
    "load",
    "pad_to",
    "pca_whiten",
    "random_crop",
    "random_crop_and_flip",
    "random_flip",
    "read_state_dict",
    "record_source",
    "record_statistics",
    "standardize",
    "standardized",
    "standardizer",
    "to_device",
    "to_float",
    "zca_whiten",
]
