"""Tables, logs and their anomalies: readers, transformations, models, detectors."""

from nnlab.series.hdfs import load_hdfs
from nnlab.series.log_detector import LogDetector
from nnlab.series.log_transformation import Event, LogTransformation
from nnlab.series.logs import (
    Windows,
    log_rows,
    next_event_windows,
    read_log,
    sessions_by_name,
)
from nnlab.series.normalisers import (
    Keys,
    Log,
    MinMax,
    OneHot,
    Robust,
    Standardize,
    TimeOfDay,
    TimeOfWeek,
)
from nnlab.series.rows import (
    Malformed,
    Row,
    csv_rows,
    json_rows,
)
from nnlab.series.series_detector import SeriesDetector
from nnlab.series.tables import Table, read_csv, read_json_lines
from nnlab.series.templates import Templates, mine_templates
from nnlab.series.transformation import Transformation, fit_transformation, windows

__all__ = [
    "Event",
    "Keys",
    "Log",
    "LogDetector",
    "LogTransformation",
    "Malformed",
    "MinMax",
    "OneHot",
    "Robust",
    "Row",
    "SeriesDetector",
    "Standardize",
    "Table",
    "Templates",
    "TimeOfDay",
    "TimeOfWeek",
    "Transformation",
    "Windows",
    "csv_rows",
    "fit_transformation",
    "json_rows",
    "load_hdfs",
    "log_rows",
    "mine_templates",
    "next_event_windows",
    "read_csv",
    "read_json_lines",
    "read_log",
    "sessions_by_name",
    "windows",
]
