"""Scores of rows as they come: against the whole series at once, row by row to the bit."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.files import SavedModel
from nnlab.models import MLP, NextValue
from nnlab.series import (
    SeriesDetector,
    Standardize,
    TimeOfDay,
    anomaly_likelihood,
    fit_transformation,
)
from nnlab.series.detector import CUT, Kept
from nnlab.series.following import Line
from nnlab.series.next_value import surprise
from nnlab.series.rows import Kind
from nnlab.series.series_detector import inputs_of
from nnlab.series.tables import Table

ROWS = 300


def table(columns):
    rng = np.random.default_rng(0)
    times = np.datetime64("2024-01-01", "us") + np.arange(ROWS) * np.timedelta64(1, "h")
    kinds: dict[str, Kind] = {f"v{k}": "number" for k in range(columns)}
    kinds["time"] = "timestamp"
    values = {f"v{k}": 10 * k + rng.normal(size=ROWS).cumsum() for k in range(columns)}
    return Table(kinds, values | {"time": times})


@functools.cache
def saved(columns, form="csv"):
    data = table(columns)
    steps = [(Standardize, f"v{k}") for k in range(columns)] + [(TimeOfDay, "time")]
    record = fit_transformation(data, steps)
    model = NextValue(4)
    width = inputs_of(jnp.zeros(columns), jnp.zeros(2)).shape[-1]
    variables = jax.jit(model.init)(jax.random.key(1), jnp.zeros((1, 2, width)))
    notes = {"transformation": record.to_json(), "columns": columns, "format": form}
    notes |= {"short": 5, "threshold": 0.2, "start": None}
    return SavedModel(model, variables, notes), data, record


def csv_lines(data):
    names = list(data.columns)
    lines = [",".join(names)]
    for row in zip(*(data.columns[name].tolist() for name in names), strict=True):
        lines.append(",".join(map(str, row)))
    return [Line(i, line.encode()) for i, line in enumerate(lines, 1)]


def of_all(detector, memory, lines, size):
    found = []
    for start in range(0, len(lines), size):
        memory, judgments = detector.judge(memory, lines[start : start + size])
        found += judgments
    return memory, found


@functools.partial(jax.jit, static_argnums=0)
def errors_of(model, variables, inputs, values):
    return jnp.log1p(surprise(model.apply(variables, inputs[None])[0], values))


@pytest.mark.parametrize("columns", [1, 2])
def test_whole_series_at_once(columns):
    """The network along all rows, and the likelihood of all errors, without this file's step."""
    network, data, record = saved(columns)
    features = record.apply(data)
    values, clock = features[:, :columns], features[:, columns:]
    best = []
    for k in range(columns):
        order = [*range(k, columns), *range(k)]
        parts = [values[:-1][:, order], clock[1:]]
        if columns > 1:
            parts.append(np.tile(np.eye(columns)[k], (ROWS - 1, 1)))
        inputs = np.concatenate(parts, 1, dtype=np.float32)
        errors = errors_of(network.model, network.variables, inputs, values[1:, k])
        best.append(anomaly_likelihood.of_series(errors, short=5).score)
    expected = np.max(best, axis=0)
    detector = SeriesDetector(network)
    _, judgments = detector.judge(detector.fresh(), csv_lines(data))
    scores = np.array([judgment.score for judgment in judgments])
    assert np.isnan(scores[:2]).all()  # the header and the first row
    # Scores are at most 1, of float32 errors of about 1e-6 through a mean and a deviation.
    np.testing.assert_allclose(scores[2:], expected, atol=1e-4)
    assert expected.max() > 0.05


@pytest.mark.parametrize("size", [1, 7, 256])
def test_row_by_row_to_the_bit(size):
    network, data, _ = saved(2)
    detector = SeriesDetector(network)
    lines = csv_lines(data)
    _, whole = detector.judge(detector.fresh(), lines)
    memory, pieces = of_all(detector, detector.fresh(), lines[:150], size)
    kept = detector.keep(memory)
    about = json.loads(json.dumps(kept.about))
    memory = detector.recall(Kept(about, kept.arrays))  # as another process does
    pieces += of_all(detector, memory, lines[150:], size)[1]
    assert repr(pieces) == repr(whole)  # of nan also


def test_json_lines_give_the_same():
    network, data, _ = saved(1)
    detector = SeriesDetector(network)
    _, (_, *expected) = detector.judge(detector.fresh(), csv_lines(data))
    rows = zip(data.columns["v0"].tolist(), data.columns["time"].tolist(), strict=True)
    texts = [json.dumps({"v0": value, "time": str(time)}).encode() for value, time in rows]
    other = SeriesDetector(saved(1, "json")[0])
    found = other.judge(other.fresh(), [Line(i, text) for i, text in enumerate(texts, 1)])[1]
    assert repr(found) == repr(expected)


def test_a_start_from_the_notes():
    """A memory in the notes, as lists in JSON, is that memory to the bit."""
    network, data, _ = saved(1)
    detector = SeriesDetector(network)
    lines = csv_lines(data)
    memory, _ = detector.judge(detector.fresh(), lines[:200])
    start = {name: array.tolist() for name, array in detector.keep(memory).arrays.items()}
    notes = json.loads(json.dumps(network.notes | {"start": start}))
    again = SeriesDetector(network._replace(notes=notes))
    rest = [lines[0], *lines[200:]]
    expected = detector.judge(memory, lines[200:])[1]
    assert repr(again.judge(again.fresh(), rest)[1][1:]) == repr(expected)


def test_malformed_lines_change_nothing():
    network, data, _ = saved(1)
    detector = SeriesDetector(network)
    lines = csv_lines(data)[:130]
    bad = [Line(0, b"1,2,3"), Line(0, b"x,2024-01-01"), Line(0, b""), Line(0, b"a", True)]
    _, expected = detector.judge(detector.fresh(), lines)
    _, found = detector.judge(detector.fresh(), [*lines[:120], *bad, *lines[120:]])
    assert repr(found[:120] + found[124:]) == repr(expected)
    reasons = [judgment.malformed for judgment in found[120:124]]
    assert reasons[0] == "has 3 cells, expected 2" and "expected a number" in reasons[1]
    assert reasons[2:] == ["is blank", CUT]


def test_headers():
    """Columns by name; a new file may have its own header or none; another's is refused."""
    network, _, _ = saved(1)
    detector = SeriesDetector(network)
    first = [Line(1, b"\xef\xbb\xbfx,time,v0\r"), Line(2, b"q,2024-01-01,1.5\r")]
    memory, judgments = detector.judge(detector.fresh(), first)
    assert memory.header == ("x", "time", "v0") and not judgments[1].malformed
    memory, judgments = detector.judge(memory, [Line(1, b"q,2024-01-01 01:00,2.5")])
    assert memory.header == ("x", "time", "v0") and not judgments[0].malformed
    memory, judgments = detector.judge(memory, [Line(1, b"v0,time"), Line(2, b"1,2024-01-02")])
    assert memory.header == ("v0", "time") and not judgments[1].malformed
    with pytest.raises(InputError, match=r"the file has the columns 'a', 'b', expected 'v0'"):
        detector.judge(detector.fresh(), [Line(1, b"a,b")])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threshold": "high"}, "miswrite"),
        ({"transformation": "{}"}, "no transformation"),
        ({"columns": 9}, "9 columns"),
        ({"format": "xml"}, "'xml'"),
        ({"short": 0}, "short=0"),
        ({"start": {}}, "a memory has the arrays"),
    ],
)
def test_notes_that_are_wrong(change, said):
    network, _, _ = saved(1)
    with pytest.raises(InputError, match=said):
        SeriesDetector(network._replace(notes=network.notes | change))


def test_other_networks():
    network, _, _ = saved(1)
    with pytest.raises(InputError, match="lack or miswrite 'transformation'"):
        SeriesDetector(network._replace(notes={}))
    with pytest.raises(InputError, match="MLP foretells no values"):
        SeriesDetector(network._replace(model=MLP(10)))
    detector = SeriesDetector(network)
    kept = detector.keep(detector.fresh())
    with pytest.raises(InputError, match="a memory has the arrays"):
        detector.recall(Kept(kept.about, dict(list(kept.arrays.items())[1:])))
    with pytest.raises(InputError, match="a memory has the header 3"):
        detector.recall(Kept({"header": 3}, kept.arrays))
