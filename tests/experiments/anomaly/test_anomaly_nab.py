"""NAB's experiment: what a detector may see."""

import json

import detectors
import jax
import numpy as np
import pytest
import streams
import windowed_gaussian

from nnlab.models import NextValue
from nnlab.series.nab_corpus import Series
from nnlab.series.next_value import negative_log_likelihood, surprise

SCRIPT = "anomaly/anomaly_nab"


def series_of(seed, rows):
    times = np.datetime64("2014-04-01", "s") + 300 * np.arange(rows)
    values = np.random.default_rng(seed).normal(size=rows)
    return Series(f"some/{seed}.csv", times, values, [])


@pytest.mark.slow
def test_no_detector_sees_ahead(script):
    config = script.Config(units=3, block=4, passes=2, window=8)
    whole = series_of(0, 120)  # 18 rows of probation
    changed = whole._replace(values=np.where(np.arange(120) < 70, whole.values, 50.0))
    forecast = streams.Network(
        NextValue(3), streams.value_and_clock, negative_log_likelihood, surprise
    )
    key = jax.random.key(0)
    rows, others = (streams.measured(forecast, [s], config, key)[0] for s in (whole, changed))
    np.testing.assert_array_equal(rows[:70], others[:70])
    assert rows[70] != others[70]
    for score in (
        windowed_gaussian.of_series,
        lambda x: detectors.range_excess([x], 6)[0],
        lambda x: detectors.likelihood([x], 3)[0],
    ):
        np.testing.assert_array_equal(score(whole.values)[:70], score(changed.values)[:70])


def test_networks_read_only_rows_before():
    whole = series_of(0, 120)
    changed = whole._replace(values=np.where(np.arange(120) < 70, whole.values, 50.0))
    for parts, seen in ((streams.value_and_clock, 71), (lambda s: streams.windows_of(s, 8), 70)):
        inputs, others = parts(whole)[0], parts(changed)[0]
        np.testing.assert_array_equal(inputs[:seen], others[:seen])
        assert not np.array_equal(inputs[seen], others[seen])


def test_series_of_different_lengths_are_scored_as_each_alone():
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=length) for length in (90, 140)]
    both = detectors.range_excess(rows, 5)
    for alone, found in zip(rows, both, strict=True):
        # Means of five float32 values of about 1, in another order, over a range of about 1.
        np.testing.assert_allclose(found, detectors.range_excess([alone], 5)[0], atol=1e-6)


def test_thinned_windows_keep_their_rows():
    thin = streams.thinned(series_of(0, 30)._replace(windows=[(10, 19), (21, 22)]), 3)
    assert thin.windows == [(4, 6), (7, 7)] and len(thin.values) == len(thin.times) == 10


@pytest.mark.slow
def test_a_small_run(script, tmp_path, monkeypatch):
    """Two made-up series, one of each kind of folder."""
    corpus = [
        series_of(seed, rows)._replace(name=name, windows=[(60, 70)])
        for seed, (name, rows) in enumerate(
            {"artificial/jumpsup.csv": 120, "realTweets/b.csv": 90}.items()
        )
    ]
    monkeypatch.setattr(script, "load_nab", lambda _: corpus)
    small = {"units": 2, "passes": 1, "members": 1, "window": 8, "compare": ("auto-encoder",)}
    script.main(script.Config(out=str(tmp_path / "run"), **small))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [row["series"] for row in result["series"]] == [each.name for each in corpus]
    names = [row["detector"] for row in result["table"]]
    assert {"windowed Gaussian", script.CHOSEN, "value, level, auto-encoder"} <= set(names)
    assert (tmp_path / "run" / "curves.png").is_file()
