"""The corpus of the Numenta Anomaly Benchmark: 58 series of one value a row, 116 windows.

`data/FOLDER/NAME.csv` has a header `timestamp,value` and rows such as `2014-04-01 00:00:00,20.0`;
`labels/combined_windows.json` has for each file the first and last timestamp of every window around
an anomaly. Timestamps are local: where clocks are turned back some come twice, and a window ends at
the first row that has its timestamp, as in the benchmark's own reader.

References:
    https://github.com/numenta/NAB, version 1.1; Ahmad et al., Unsupervised real-time anomaly
    detection for streaming data, Neurocomputing 2017.
"""

import csv
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nnlab.data.locate import find_given
from nnlab.errors import InputError
from nnlab.paths import reading, user_path
from nnlab.series.nab import row_values

WINDOWS = "labels/combined_windows.json"


class Series(NamedTuple):
    """One file of the corpus.

    Attributes:
        name: its folder and file, such as "realTweets/Twitter_volume_AAPL.csv".
        times: datetime64[s] [rows].
        values: float64 [rows], finite.
        windows: first and last row of each anomaly.
    """

    name: str
    times: np.ndarray
    values: np.ndarray
    windows: list[tuple[int, int]]


def load_nab(data_dir: str | os.PathLike | None = None) -> list[Series]:
    """Read every file that the labels name, in the order of the names.

    Looks in `data_dir`, or without it in `NNLAB_DATA_DIR`, and in its folders "nab" and "NAB".

    Raises:
        InputError: the corpus is in none of them, or a file cannot be read as described above.
    """
    places = [f"{folder}{WINDOWS}" for folder in ("", "nab/", "NAB/")]
    expected = f"a folder with data and {WINDOWS}, as of https://github.com/numenta/NAB,"
    labels = find_given("The NAB corpus", places, data_dir, expected)
    root = labels.parents[1]
    return [read_series(root, name, windows) for name, windows in _windows(labels)]


def read_series(root: Path, name: str, windows: list[list[str]]) -> Series:
    """Read one file below `root`, with windows as the labels write them.

    Raises:
        InputError: the file is missing or empty, a row is not a time and a finite number, or a
            window does not begin and end at rows of the file.
    """
    path = user_path(root) / "data" / name
    try:
        with reading(path), path.open(newline="") as file:
            rows = list(csv.reader(file))[1:]
        times = np.array([row[0] for row in rows], "datetime64[s]")
        values = np.array([row[1] for row in rows], np.float64)
    except InputError:
        raise
    except (ValueError, IndexError) as error:
        raise InputError(f"{path} has a row that is not a time and a number: {error}") from error
    if not rows or not np.isfinite(values).all():
        bad = int(np.sum(~np.isfinite(values)))
        raise InputError(f"{path} has {len(rows)} rows, {bad} of them not finite, expected some.")
    if np.isnat(times).any():
        raise InputError(f"{path} has a row without a time.")
    found = [_rows(path, times, window) for window in windows]
    try:
        row_values(len(rows), found)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return Series(name, times, values, found)


def _windows(path: Path) -> list[tuple[str, list[list[str]]]]:
    with reading(path):
        text = path.read_bytes()
    try:
        windows = sorted(json.loads(text.decode("utf-8-sig")).items())
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} is not a JSON object of windows: {error}") from error
    if not windows:
        raise InputError(f"{path} names no file, expected one or more.")
    return windows


def _rows(path: Path, times: np.ndarray, window: list[str]) -> tuple[int, int]:
    try:
        first, last = (int(np.flatnonzero(times == np.datetime64(t, "s"))[0]) for t in window)
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path} has no rows for the window {window}.") from error
    return first, last
