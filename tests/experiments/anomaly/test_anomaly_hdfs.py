"""DeepLog on HDFS: the script's baselines and equation by hand."""

import json

import numpy as np
import pytest
from sklearn import metrics

from nnlab import series
from nnlab.models import load_model

SCRIPT = "anomaly/anomaly_hdfs"


def test_ngrams_by_hand(script):
    train = series.next_event_windows([[0, 1], [0, 1], [0, 0]], 3, end=3)
    score = script.ngrams(train, 2)
    # After 0 came 1 twice, 0 once and the end once; after 1 only the end.
    windows = series.next_event_windows([[0, 1], [0, 0], [1, 1]], 3, end=3)
    assert score(windows).tolist() == [0, 0, 0, 0, 1, 1, 999, 999, 0]
    assert script.of_sessions(score(windows), windows.session).tolist() == [0, 1, 999]
    assert script.unseen(1, windows).tolist() == [0, 999, 0, 0, 0, 0, 999, 999, 0]


def test_a_row_by_hand(script):
    """One of 10 normal sessions is called abnormal, and one of two abnormal ones."""
    row = script.row("x", 5, [np.array([4] * 9 + [5]), np.array([9, 0])])
    assert row["false alarms / %"] == 10 and row["recall / %"] == 50
    assert row["precision here / %"] == round(100 * 8419 / 8420, 2)
    assert row["precision / %"] == round(100 * 8419 / (8419 + 55337), 2)


def test_a_row_against_scikit_learn(script):
    """Equation (1) is the precision of sessions that are weighted to the published numbers."""
    rng = np.random.default_rng(0)
    normal, abnormal = rng.integers(0, 9, 40), rng.integers(3, 12, 30)
    truth = np.arange(70) >= 40
    flagged = np.concatenate([normal, abnormal]) >= 6
    weights = np.where(truth, script.ABNORMAL_IN_TEST / 30, script.NORMAL_IN_TEST / 40)
    row = script.row("x", 6, [normal, abnormal])
    for name in ("precision", "f1", "recall"):
        expected = 100 * getattr(metrics, f"{name}_score")(truth, flagged, sample_weight=weights)
        found = row[f"{name.replace('f1', 'F1')} / %"]
        assert abs(found - expected) < 0.01  # counts are rounded to sessions, and rates to 0.01 %


@pytest.mark.slow
def test_a_small_run(script, tmp_path):
    (tmp_path / "hdfs_train").write_text("5 5 22 11 9\n5 22 5 11 9\n" * 20)
    (tmp_path / "hdfs_test_abnormal").write_text("5 22\n5 5 22 11 9 7\n9 9 9 9\n" * 3)
    small = {"folds": 2, "epochs": 1, "batch_size": 8, "features": 8, "window": 4}
    out = {"data_dir": str(tmp_path), "out": str(tmp_path / "run")}
    script.main(script.Config(networks=("adder",), **small, **out))
    table = json.loads((tmp_path / "run" / "result.json").read_text())["table"]
    assert {row["detector"] for row in table} == {
        *("2-grams", "3-grams", "6-grams", "unseen", "adder LSTM", "adder LSTM, surprise")
    }
    (unseen,) = [row for row in table if row["detector"] == "unseen"]
    assert unseen["false alarms / %"] == 0 and unseen["recall / %"] == 33.33  # the 7
    saved = load_model(tmp_path / "run" / "network.safetensors")
    assert saved.notes == {"events": [5, 9, 11, 22], "window": 4, "k": 9}
