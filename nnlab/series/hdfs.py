"""HDFS: the log of a distributed file system, as sessions of the events of one block.

The log covers 200 machines over two days; experts of the system labelled each block as normal or
abnormal. The files hold one session a line, as numbers of templates: the 4,855 normal sessions on
which DeepLog was trained, and all 16,838 abnormal ones. They lack the 553,366 other normal sessions
on which DeepLog was tested.

References:
    Xu et al., Detecting large-scale system problems by mining console logs, SOSP 2009: the log;
    Du et al., DeepLog, CCS 2017: the counts; https://github.com/wuyifan18/DeepLog: the
    files.
"""

import os
from pathlib import Path
from typing import NamedTuple

from nnlab.data.locate import Source, find_given, locate
from nnlab.errors import InputError
from nnlab.paths import reading

HDFS = Source(
    name="hdfs",
    folders=("hdfs",),
    file_sets=(("hdfs_train", "hdfs_test_abnormal"),),
    mirrors=("https://raw.githubusercontent.com/wuyifan18/DeepLog/master/data/",),
    md5={
        "hdfs_train": "1c0c488d54ba5a80afba70004d9d7751",
        "hdfs_test_abnormal": "33b29caf6dfdaac86e99006bacfa9c1b",
    },
)
NORMAL_IN_TEST, ABNORMAL_IN_TEST = 553_366, 16_838
"""Numbers of sessions in the published test."""


class Sessions(NamedTuple):
    """Normal and abnormal sessions of event numbers."""

    normal: list[list[int]]
    abnormal: list[list[int]]


def load_hdfs(data_dir: str | os.PathLike | None = None) -> Sessions:
    """Read the sessions, and download them into the cache if they are nowhere.

    Raises:
        InputError: they are nowhere and cannot be downloaded, or a line is not made of numbers.
    """
    return Sessions(*map(_read, locate(HDFS, data_dir)))


def hdfs_log(data_dir: str | os.PathLike | None = None) -> Path:
    """Find loghub's file of 2,000 raw lines of that log.

    Raises:
        InputError: it is in none of the folders that the user named.
    """
    places = ("hdfs/loghub-2k/HDFS_2k.log", "loghub-2k/HDFS_2k.log", "HDFS_2k.log")
    return find_given("HDFS_2k.log", places, data_dir, "a file hdfs/loghub-2k/HDFS_2k.log")


def _read(path: Path) -> list[list[int]]:
    sessions = []
    with reading(path):
        lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        events = line.split()
        if not events or not all(event.isdigit() for event in events):
            raise InputError(f"{path}, line {number}, is {line[:40]!r}, expected numbers of events")
        sessions.append([int(event) for event in events])
    if not sessions:
        raise InputError(f"{path} is empty, expected a session a line")
    return sessions
