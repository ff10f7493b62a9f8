"""Rows of CSV and JSON lines: what is good, what is malformed, and that none is lost."""

import csv
import io
import itertools
import json
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.errors import InputError
from nnlab.series import (
    Malformed,
    Row,
    csv_rows,
    json_rows,
)
from nnlab.series.rows import Kind

KINDS: dict[str, Kind] = {"time": "timestamp", "value": "number", "name": "text"}
NOON = datetime(2014, 7, 1, 12)


def reasons(rows):
    return [(row.line, row.reason) for row in rows if isinstance(row, Malformed)]


def test_csv_cells_by_hand():
    lines = [
        b"\xef\xbb\xbfname,time,other,value\r\n",
        b'"a,""b""",2014-07-01 12:00:00,x,-1.5e3\r\n',
        b"caf\xc3\xa9,2014-07-01T14:00:00+02:00,,7",
    ]
    assert list(csv_rows(lines, KINDS)) == [
        Row(2, {"time": NOON, "value": -1500.0, "name": 'a,"b"'}),
        Row(3, {"time": NOON, "value": 7.0, "name": "café"}),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"2014-07-01,1", "has 2 cells, expected 3"),
        (b"2014-07-01,one,a", "has value = 'one', expected a number"),
        (b"2014-07-01,,a", "has value = '', expected a number"),
        (b"2014-07-01,1_0,a", "has value = '1_0', expected a number"),
        (b"2014-07-01,nan,a", "has value = 'nan', expected a finite number"),
        (b"2014-07-01,1e999,a", "has value = '1e999', expected a finite number"),
        (b"yesterday,1,a", "has time = 'yesterday', expected a timestamp in ISO 8601"),
        (b"0001-01-01T00:00+23:00,1,a", "has time = '0001-01-01T00:00+23:00', expected a time"),
        (b"2014-07-01,1,\xff", "is not UTF-8 from byte 14 on"),
        (b'2014-07-01,1,"a', "is not CSV (unexpected end of data)"),
        (b'2014-07-01,1,"a"b', "is not CSV ("),
        (b" \r\n", "is blank"),
        (b"2014-07-01,1," + 200_000 * b"a", "is not CSV (field larger than field limit"),
    ],
)
def test_a_malformed_line_of_csv(line, reason):
    good = b"2014-07-01 12:00,1,a\n"
    rows = list(csv_rows([b"time,value,name\n", good, line, good], KINDS))
    before, bad, after = rows
    assert isinstance(bad, Malformed) and bad.line == 3
    assert bad.reason.startswith(reason), bad
    assert isinstance(before, Row) and after == Row(4, before.cells)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("20140701T1200", NOON),
        ("2014-07-01 12:00:00,5 Z", NOON.replace(microsecond=500_000)),
        ("2014-06-30 24:00", datetime(2014, 7, 1)),
        ("20140630T240000.0+02", datetime(2014, 6, 30, 22)),
        ("2014-06-30 24:01", None),
        ("2014-07-01-05:00", None),  # a date with a time zone, not a time of day
        ("2014-07-01T12.5", None),  # half past
        ("1735110200000", None),  # milliseconds since 1970, not the year 1735
        ("2014-07-01 12:00 PM", None),
        ("01/07/2014 12:00", None),
    ],
)
def test_a_time_of_day_is_read_as_no_other(text, time):
    (row,) = csv_rows([b"time", text.encode()], {"time": "timestamp"}, delimiter=";")
    assert (row.cells["time"] if isinstance(row, Row) else None) == time


def test_local_times_and_time_zones_do_not_mix():
    times = ["2014-07-01 12:00", "2014-07-01 12:00Z", "2014-07-01 13:00"]
    kinds: dict[str, Kind] = {"time": "timestamp"}
    said = (3, "has time = '2014-07-01 12:00Z', expected a timestamp without a time zone, as above")
    assert reasons(csv_rows([b"time", *map(str.encode, times)], kinds, zones={})) == [said]
    lines = [json.dumps({"time": time}).encode() for time in times]
    assert [line for line, _ in reasons(json_rows(lines, kinds, zones={}))] == [2]
    assert not reasons(json_rows(lines, kinds))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"time": "2014-07-01", "value": 1}', "has the keys 'time', 'value', expected also 'na"),
        (b'{"time": "2014-07-01", "value": true, "name": ""}', "has value = True, expected a num"),
        (b'{"time": "2014-07-01", "value": "1", "name": ""}', "has value = '1', expected a numb"),
        (b'{"time": "2014-07-01", "value": NaN, "name": ""}', "has value = nan, expected a finite"),
        (b'{"time": "2014-07-01", "value": 1e999, "name": ""}', "has value = inf, expected a fi"),
        (b'{"time": 5, "value": 1, "name": ""}', "has time = 5.0, expected a timestamp"),
        (b'{"time": "2014-07-01", "value": 1, "name": null}', "has name = None, expected a text"),
        (b'{"time": "2014-07-01", "value": 1, "name": "\\ud800"}', "has name = '\\ud800', exp"),
        (b'{"value": 1, "value": 2}', "has a key more than once"),
        (b"[1, 2]", "is [1.0, 2.0], expected a JSON object"),
        (b'{"time": ', "is not JSON"),
        (100_000 * b"[", "is not JSON"),
        (b"\xff{}", "is not UTF-8 from byte 1 on"),
        (b"", "is blank"),
    ],
)
def test_a_malformed_line_of_json(line, reason):
    good = b'{"name": "a", "value": 1, "time": "2014-07-01 12:00", "more": {}}'
    rows = list(json_rows([good, line, good], KINDS))
    before, bad, after = rows
    assert isinstance(bad, Malformed) and bad.line == 2
    assert bad.reason.startswith(reason), bad
    assert isinstance(before, Row) and after == Row(3, {"time": NOON, "value": 1.0, "name": "a"})


def test_a_whole_number_of_any_length():
    rows = json_rows([b'{"value": 1' + 5000 * b"0" + b"}", b'{"value": 12}'], {"value": "number"})
    assert [type(row) for row in rows] == [Malformed, Row]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "the CSV is empty, expected a header with 'time', 'value', 'name'"),
        ([b"\n"], "the CSV: the header in line 1 is blank"),
        ([b"\xff\xfet"], "the CSV: the header in line 1 is not UTF-8 from byte 1 on"),
        ([b"time,value"], "the CSV has the columns 'time', 'value', expected 'name'"),
        (
            [b"time;value;name"],
            "the CSV has the columns 'time;value;name', expected 'time', 'value",
        ),
        ([b"time,value,time"], "the CSV has the column 'time' more than once, expected once"),
    ],
)
def test_a_header_that_cannot_be_used(lines, message):
    with pytest.raises(InputError) as error:
        list(csv_rows(lines, KINDS))
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_a_growing_file_is_read_no_line_ahead():
    given = []

    def growing():
        for number in itertools.count():
            given.append(number)
            yield f"{number}\n".encode()

    rows = csv_rows(growing(), {"n": "number"}, header=["n"], first_line=100)
    for number in range(5):
        assert next(rows) == Row(100 + number, {"n": float(number)})
        assert len(given) == number + 1


cells = st.tuples(
    st.floats(allow_nan=False, allow_infinity=False),
    st.datetimes(),
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])),
)


@settings(max_examples=15, deadline=None)
@given(st.lists(cells))
def test_what_was_written_is_read(rows):
    """By Python's own writers; a text of blanks alone in its row is a blank line."""
    kinds: dict[str, Kind] = {"x": "number", "t": "timestamp", "s": "text"}
    expected = [dict(zip(kinds, row, strict=True)) for row in rows]
    file = io.StringIO()
    csv.writer(file).writerows([list(kinds), *([repr(x), t, s] for x, t, s in rows)])
    found = list(csv_rows(file.getvalue().encode().splitlines(True), kinds))
    assert [row.cells for row in found if isinstance(row, Row)] == expected
    lines = [
        json.dumps(row | {"t": row["t"].isoformat()}, ensure_ascii=False).encode()
        for row in expected
    ]
    found = list(json_rows(lines, kinds))
    assert [row.cells for row in found if isinstance(row, Row)] == expected


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary().map(lambda b: b.replace(b"\n", b"")), max_size=20))
def test_no_line_is_lost(lines):
    """Any bytes: each line is a row or malformed, in order."""
    for rows in (csv_rows(lines, {"a": "text"}, header=["a"]), json_rows(lines, {"a": "text"})):
        rows = list(rows)
        assert [row.line for row in rows] == list(range(1, len(lines) + 1))
        assert all("\n" not in reason for _, reason in reasons(rows))
