"""DeepLog on HDFS: the script's baselines by hand, and a run on a few made-up sessions."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnlab import series
from nnlab.models import load_model

SCRIPT = Path(__file__).parents[3] / "experiments" / "anomaly" / "anomaly_hdfs.py"


def test_ngrams_by_hand(script):
    train = series.next_event_windows([[0, 1], [0, 1], [0, 0]], 3, end=3)
    judge = script.ngrams(train, 2)
    # After 0 came 1 twice, 0 once and the end once; after 1 only the end.
    windows = series.next_event_windows([[0, 1], [0, 0], [1, 1]], 3, end=3)
    assert judge(windows).tolist() == [0, 0, 0, 0, 1, 1, 999, 999, 0]
    assert script.of_sessions(judge(windows), windows.session).tolist() == [0, 1, 999]
    assert script.unseen(1, windows).tolist() == [0, 999, 0, 0, 0, 0, 999, 999, 0]


def test_a_row_by_hand(script):
    """One of 10 normal sessions is called abnormal, and one of two abnormal ones."""
    row = script.row("x", 5, [np.array([4] * 9 + [5]), np.array([9, 0])])
    assert row["false alarms / %"] == 10 and row["recall / %"] == 50
    assert row["precision here / %"] == round(100 * 8419 / 8420, 2)
    assert row["precision / %"] == round(100 * 8419 / (8419 + 55337), 2)


@pytest.mark.slow
def test_a_small_run(tmp_path):
    (tmp_path / "hdfs_train").write_text("5 5 22 11 9\n5 22 5 11 9\n" * 20)
    (tmp_path / "hdfs_test_abnormal").write_text("5 22\n5 5 22 11 9 7\n9 9 9 9\n" * 3)
    small = ["--networks", "adder", "--folds", "2", "--epochs", "4", "--batch-size", "8"]
    small += ["--features", "8", "--window", "4", "--data-dir", tmp_path]
    command = [sys.executable, SCRIPT, *small, "--out", tmp_path / "run"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert process.returncode == 0, process.stderr
    table = json.loads((tmp_path / "run" / "result.json").read_text())["table"]
    assert {row["detector"] for row in table} == {
        *("2-grams", "3-grams", "6-grams", "unseen", "adder LSTM", "adder LSTM, surprise")
    }
    (unseen,) = [row for row in table if row["detector"] == "unseen"]
    assert unseen["false alarms / %"] == 0 and unseen["recall / %"] == 33.33  # the 7
    assert (tmp_path / "run" / "curves.png").is_file()
    saved = load_model(tmp_path / "run" / "network.safetensors")
    assert saved.notes == {"events": [5, 9, 11, 22], "window": 4, "k": 9}
    assert saved.model.window == 4
