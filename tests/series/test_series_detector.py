"""Scores of rows as they come: against the whole series at once, row by row to the bit."""

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
from nnlab.series.detector import CUT, SavedMemory
from nnlab.series.following import Line
from nnlab.series.next_value import surprise
from nnlab.series.rows import Kind
from nnlab.series.series_detector import inputs_of
from nnlab.series.tables import Table

ROWS, COLUMNS = 300, 2


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    times = np.datetime64("2024-01-01", "us") + np.arange(ROWS) * np.timedelta64(1, "h")
    kinds: dict[str, Kind] = {"v0": "number", "v1": "number", "time": "timestamp"}
    values = {f"v{k}": 10 * k + rng.normal(size=ROWS).cumsum() for k in range(COLUMNS)}
    return Table(kinds, values | {"time": times})


@pytest.fixture(scope="module")
def network(data, random_variables):
    """A network of random weights, whose largest scores are far from 0 and 1."""
    steps = [(Standardize, "v0"), (Standardize, "v1"), (TimeOfDay, "time")]
    notes = {"transformation": fit_transformation(data, steps).to_json(), "columns": COLUMNS}
    notes |= {"format": "csv", "short": 5, "threshold": 0.2, "start": None}
    model = NextValue(3)
    width = inputs_of(jnp.zeros(COLUMNS), jnp.zeros(2)).shape[-1]
    variables = random_variables(model, jnp.zeros((1, 2, width)))
    return SavedModel(model, variables, notes)


@pytest.fixture(scope="module")
def detector(network):
    return SeriesDetector(network)


@pytest.fixture(scope="module")
def lines(data):
    return csv_lines(data)


@pytest.fixture(scope="module")
def whole(detector, lines):
    """The scores of all lines in one call."""
    return detector.score(detector.fresh(), lines)[1]


def csv_lines(data):
    names = list(data.columns)
    lines = [",".join(names)]
    for row in zip(*(data.columns[name].tolist() for name in names), strict=True):
        lines.append(",".join(map(str, row)))
    return [Line(i, line.encode()) for i, line in enumerate(lines, 1)]


def test_whole_series_at_once(network, detector, data, whole):
    """The network along all rows, and the likelihood of all errors, without this file's step."""
    features = detector.transformation.apply(data)
    values, clock = features[:, :COLUMNS], features[:, COLUMNS:]
    inputs = []
    for k in range(COLUMNS):
        turned = values[:-1][:, [*range(k, COLUMNS), *range(k)]]
        one_hot = np.tile(np.eye(COLUMNS)[k], (ROWS - 1, 1))
        inputs.append(np.concatenate([turned, clock[1:], one_hot], 1, dtype=np.float32))

    @jax.jit
    def scores_of(inputs, values):
        errors = jnp.log1p(surprise(network.model.apply(network.variables, inputs), values))
        return anomaly_likelihood.of_series(errors, short=5).score

    expected = np.max(scores_of(np.stack(inputs), values[1:].T), axis=0)
    scores = np.array([score.score for score in whole])
    assert np.isnan(scores[:2]).all()  # the header and the first row
    # Scores are at most 1, of float32 errors of about 1e-6 through a mean and a deviation.
    np.testing.assert_allclose(scores[2:], expected, atol=1e-4)
    assert expected.max() > 0.05
    assert {score.why for score in whole[2:]} == {"v0", "v1"}


@pytest.mark.parametrize("size", [1, 7, 256])
def test_row_by_row_to_the_bit(detector, lines, whole, size):
    """As another process does after the first half."""
    memory, pieces = detector.fresh(), []
    for start in [*range(0, 150, size), *range(150, len(lines), size)]:
        stop = min(start + size, 150 if start < 150 else len(lines))
        memory, scores = detector.score(memory, lines[start:stop])
        pieces += scores
        if stop == 150:
            saved = detector.to_arrays(memory)
            about = json.loads(json.dumps(saved.about))
            memory = detector.from_arrays(SavedMemory(about, saved.arrays))
    assert repr(pieces) == repr(whole)  # of nan also


def test_json_lines_give_the_same(network, data, whole):
    detector = SeriesDetector(network._replace(notes=network.notes | {"format": "json"}))
    columns = [data.columns[name].tolist() for name in data.kinds]
    rows = (dict(zip(data.kinds, row, strict=True)) for row in zip(*columns, strict=True))
    texts = [json.dumps(row | {"time": str(row["time"])}).encode() for row in rows]
    _, scores = detector.score(detector.fresh(), [Line(i, text) for i, text in enumerate(texts, 1)])
    assert repr(scores) == repr(whole[1:])


def test_a_file_may_have_another_dialect(network, detector, lines):
    """That of the training, which the notes name, gives the same bits."""

    def other(text):
        return text.replace(b",", b";").replace(b".", b",")

    notes = network.notes | {"dialect": [";", ","]}
    again = SeriesDetector(network._replace(notes=notes))
    some = lines[:20]
    _, expected = detector.score(detector.fresh(), some)
    turned = [line._replace(text=other(line.text)) for line in some]
    memory, scores = again.score(again.skip(again.fresh(), turned[0]), turned)
    np.testing.assert_equal(scores, expected)
    assert memory.header is not None and not any(score.malformed for score in scores)


def test_a_start_from_the_notes(network, detector, lines, whole):
    """A memory in the notes, as lists in JSON, is that memory to the bit."""
    memory, _ = detector.score(detector.fresh(), lines[:200])
    start = {name: array.tolist() for name, array in detector.to_arrays(memory).arrays.items()}
    notes = json.loads(json.dumps(network.notes | {"start": start}))
    again = SeriesDetector(network._replace(notes=notes))
    _, scores = again.score(again.fresh(), [lines[0], *lines[200:]])
    assert repr(scores[1:]) == repr(whole[200:])


def test_malformed_lines_change_nothing(detector, lines, whole):
    bad = [Line(0, b"1,2,3,4"), Line(0, b"x,1,2024-01-01"), Line(0, b""), Line(0, b"a", True)]
    _, found = detector.score(detector.fresh(), [*lines[:120], *bad, *lines[120:]])
    assert repr(found[:120] + found[124:]) == repr(whole)
    reasons = [score.malformed for score in found[120:124]]
    assert reasons[0] == "has 4 cells, expected 3" and "expected a number" in reasons[1]
    assert reasons[2:] == ["is blank", CUT]


def test_headers(detector):
    """Columns by name; a new file may have its own header or none; another's is refused."""
    first = [Line(1, b"\xef\xbb\xbfx,time,v1,v0\r"), Line(2, b"q,2024-01-01,1,1.5\r")]
    memory, scores = detector.score(detector.fresh(), first)
    assert memory.header == ("x", "time", "v1", "v0") and not scores[1].malformed
    memory, scores = detector.score(memory, [Line(1, b"q,2024-01-01 01:00,2,2.5")])
    assert memory.header == ("x", "time", "v1", "v0") and not scores[0].malformed
    lines = [Line(1, b"v0,time,v1"), Line(2, b"1,2024-01-02,1")]
    memory, scores = detector.score(memory, lines)
    assert memory.header == ("v0", "time", "v1") and not scores[1].malformed
    assert detector.skip(memory, first[0]).header == ("x", "time", "v1", "v0")
    with pytest.raises(InputError, match=r"the file has the columns 'a', 'b', expected 'v0'"):
        detector.score(detector.fresh(), [Line(1, b"a,b")])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threshold": "high"}, "miswrite"),
        ({"transformation": "{}"}, "no Transformation"),
        ({"columns": 9}, "9 columns"),
        ({"format": "xml"}, "'xml'"),
        ({"short": 0}, "short=0"),
        ({"start": {}}, "a memory has the arrays"),
    ],
)
def test_notes_that_are_wrong(network, change, said):
    with pytest.raises(InputError, match=said):
        SeriesDetector(network._replace(notes=network.notes | change))


def test_other_networks(network, detector):
    with pytest.raises(InputError, match="lack or miswrite 'transformation'"):
        SeriesDetector(network._replace(notes={}))
    with pytest.raises(InputError, match="MLP does not predict table values"):
        SeriesDetector(network._replace(model=MLP(10)))
    saved = detector.to_arrays(detector.fresh())
    with pytest.raises(InputError, match="a memory has the arrays"):
        detector.from_arrays(SavedMemory(saved.about, dict(list(saved.arrays.items())[1:])))
    with pytest.raises(InputError, match="a memory has the header 3"):
        detector.from_arrays(SavedMemory({"header": 3}, saved.arrays))
