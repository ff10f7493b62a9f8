"""Records: what is written and read again, files of earlier versions, and what is refused."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from nnlab.errors import InputError
from nnlab.series import LogTransformation, MinMax, Templates, Transformation
from nnlab.series.tables import table_of

GOLDEN = Path(__file__).parent / "golden"  # written by version 0.1.0
TRANSFORMATION, LOG = (
    (GOLDEN / name).read_text().strip()
    for name in ("transformation.json", "log_transformation.json")
)
FEATURES = (  # of the cells below, by the same version
    "fb16af3d85f70f3f7d7eff3e5a3ae33c000000000000803f000000000000000000000000"
    "b236683d99967f3f64c3043cd9fd7f3f"
)


def test_earlier_versions_are_read():
    transformation = Transformation.from_json(TRANSFORMATION)
    assert transformation.to_json() == TRANSFORMATION
    cells = {"x": 12.573022109361556, "s": "a", "t": datetime(2024, 1, 1, 0, 13)}
    row = transformation.apply(table_of(transformation.kinds, [cells]))
    assert row.tobytes().hex() == FEATURES
    log = LogTransformation.from_json(LOG)
    assert log.to_json() == LOG and log.templates.templates[1] == "close <*>"


def refused(kind, good, **changes):
    text = json.dumps(good | changes)
    with pytest.raises(InputError) as error:
        kind.from_json(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [Transformation, Templates, LogTransformation])
@pytest.mark.parametrize("text", ["", "{", "[]", "5", "null", '"\ud800"', 100_000 * "["])
def test_other_texts_are_refused(kind, text):
    with pytest.raises(InputError, match=f"is no {kind.__name__}, expected"):
        kind.from_json(text)


def test_wrong_fields_are_refused():
    good = json.loads(TRANSFORMATION)
    minmax = good["normalisers"][1]
    for name, values in {
        "version": (0, 2, "1", None),
        "rows": ([1, 0], [0], [0, 1, 2], "01", [0, 1.5], None),
        "window": (0, -1, 1.5, "1", True, None),
        "limit": (0, "x", True, None, float("nan"), 10**400),
        "normalisers": ([], 5, [5], [{}], None),
    }.items():
        for value in values:
            refused(Transformation, good, **{name: value})
    for changes in (
        *({"normaliser": "Max"}, {"normaliser": "Keys"}, {"more": 1}),
        *({"scale": 0}, {"scale": float("nan")}, {"offset": "x"}, {"column": 5}),
    ):
        refused(Transformation, good, normalisers=[minmax | changes])
    log = json.loads(LOG)
    for changes in ({"version": 2}, {"session": 5}, {"session": "("}, {"templates": None}):
        refused(LogTransformation, log, **changes)
    for changes in ({"templates": "a"}, {"templates": [1]}, {"masks": None}, {"masks": ["("]}):
        refused(Templates, log["templates"], **changes)


def test_a_whole_number_is_a_float():
    good = json.loads(TRANSFORMATION)
    normalisers = [{"normaliser": "MinMax", "column": "x", "offset": 1, "scale": 2}]
    read = Transformation.from_json(json.dumps(good | {"normalisers": normalisers}))
    assert repr(read.normalisers) == repr((MinMax("x", 1.0, 2.0),))
