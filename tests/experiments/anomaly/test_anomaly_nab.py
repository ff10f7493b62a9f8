"""NAB's experiment: what a detector may see, and a small run on the corpus."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.anomaly import windowed_gaussian
from nnlab.models import NextValue
from nnlab.series.nab_corpus import Series
from nnlab.series.next_value import negative_log_likelihood, surprise

SCRIPT = Path(__file__).parents[3] / "experiments" / "anomaly" / "anomaly_nab.py"


def series_of(seed, rows):
    times = np.datetime64("2014-04-01", "s") + 300 * np.arange(rows)
    values = np.random.default_rng(seed).normal(size=rows)
    return Series(f"some/{seed}.csv", times, values, [])


@pytest.mark.slow
def test_no_detector_sees_ahead(script):
    config = script.Config(units=3, block=4, passes=2, window=8)
    whole = series_of(0, 120)  # 18 rows of probation
    changed = whole._replace(values=np.where(np.arange(120) < 70, whole.values, 50.0))
    forecast = script.Network(
        NextValue(3), script.value_and_clock, negative_log_likelihood, surprise
    )
    key = jax.random.key(0)
    rows, others = (script.measured(forecast, [s], config, key)[0] for s in (whole, changed))
    np.testing.assert_array_equal(rows[:70], others[:70])
    assert rows[70] != others[70]
    for score in (
        windowed_gaussian.of_series,
        lambda x: script.outside([x], 6)[0],
        lambda x: script.likelihood([x], 3)[0],
    ):
        np.testing.assert_array_equal(score(whole.values)[:70], score(changed.values)[:70])


def test_what_networks_are_given_is_of_rows_before(script):
    whole = series_of(0, 120)
    changed = whole._replace(values=np.where(np.arange(120) < 70, whole.values, 50.0))
    for parts, seen in ((script.value_and_clock, 71), (lambda s: script.windows_of(s, 8), 70)):
        inputs, others = parts(whole)[0], parts(changed)[0]
        np.testing.assert_array_equal(inputs[:seen], others[:seen])
        assert not np.array_equal(inputs[seen], others[seen])


@pytest.mark.slow
def test_a_small_run(tmp_path, script):
    original_data = os.environ.get("NNLAB_TEST_DATA")
    if not original_data:
        pytest.skip("NNLAB_TEST_DATA does not name a folder with the original files")
    small = ["--thin", "20", "--units", "2", "--passes", "1", "--members", "1", "--window", "8"]
    small += ["--compare", "auto-encoder"]
    out = ["--data-dir", original_data, "--out", tmp_path / "run"]
    command = [sys.executable, SCRIPT, *small, *out]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert len(result["series"]) == 58
    names = [row["detector"] for row in result["table"]]
    assert {"windowed Gaussian", script.CHOSEN, "value, level, auto-encoder"} <= set(names)
    assert (tmp_path / "run" / "curves.png").is_file()
