"""Data sets on disk in; checked, scaled and augmented arrays out."""

from nnlab.data.augment import random_crop, random_flip
from nnlab.data.dataset import Dataset, Split, check_arrays
from nnlab.data.sources import load
from nnlab.data.transforms import (
    Whitening,
    channel_statistics,
    decorrelate,
    fit_whitening,
    pad_to,
    pca_whiten,
    standardize,
    standardized,
    to_float,
    zca_whiten,
)

__all__ = [
    "Dataset",
    "Split",
    "Whitening",
    "channel_statistics",
    "check_arrays",
    "decorrelate",
    "fit_whitening",
    "load",
    "pad_to",
    "pca_whiten",
    "random_crop",
    "random_flip",
    "standardize",
    "standardized",
    "to_float",
    "zca_whiten",
]
