"""Data sets on disk in; checked, scaled and augmented arrays out."""

from nnlab.data.augment import random_crop, random_crop_and_flip, random_flip
from nnlab.data.dataset import Dataset, RandomAccess, Records, Split, check_arrays
from nnlab.data.hdfs import load_hdfs
from nnlab.data.log_transformation import Event, LogTransformation
from nnlab.data.logs import (
    Windows,
    log_rows,
    next_event_windows,
    read_log,
    sessions_by_name,
    sliding_sessions,
)
from nnlab.data.normalisers import (
    Keys,
    Log,
    MinMax,
    OneHot,
    Robust,
    Standardize,
    TimeOfDay,
    TimeOfWeek,
)
from nnlab.data.rows import Malformed, Row, csv_rows, json_rows
from nnlab.data.sources import load, record_source
from nnlab.data.state_dicts import read_state_dict
from nnlab.data.stream import Stream, to_device
from nnlab.data.tables import Table, read_csv, read_json_lines
from nnlab.data.templates import Templates, mine_templates
from nnlab.data.transformation import Transformation, fit_transformation, windows
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
    "Event",
    "Keys",
    "Log",
    "LogTransformation",
    "Malformed",
    "MinMax",
    "OneHot",
    "RandomAccess",
    "Records",
    "Robust",
    "Row",
    "Split",
    "Standardize",
    "Stream",
    "Table",
    "Templates",
    "TimeOfDay",
    "TimeOfWeek",
    "Transformation",
    "Whitening",
    "Windows",
    "channel_statistics",
    "check_arrays",
    "csv_rows",
    "decorrelate",
    "fit_transformation",
    "fit_whitening",
    "json_rows",
    "load",
    "load_hdfs",
    "log_rows",
    "mine_templates",
    "next_event_windows",
    "pad_to",
    "pca_whiten",
    "random_crop",
    "random_crop_and_flip",
    "random_flip",
    "read_csv",
    "read_json_lines",
    "read_log",
    "read_state_dict",
    "record_source",
    "record_statistics",
    "sessions_by_name",
    "sliding_sessions",
    "standardize",
    "standardized",
    "standardizer",
    "to_device",
    "to_float",
    "windows",
    "zca_whiten",
]
