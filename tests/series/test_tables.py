"""Whole tables: types, counts of malformed lines, and what is refused."""

import csv
import gzip
import os

import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.series import Malformed, read_csv, read_json_lines
from nnlab.series.rows import Kind
from nnlab.series.tables import opened

KINDS: dict[str, Kind] = {"time": "timestamp", "value": "number", "name": "text"}


def written(tmp_path, text, name="table.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_types_of_the_columns(tmp_path):
    table = read_csv(
        written(tmp_path, "value,time,name\n1,2014-07-01 00:30,a\n2,2014-07-02,b\n\n"), KINDS
    )
    assert len(table) == 2 and table.malformed == 0 and list(table.columns) == list(KINDS)
    assert table.columns["value"].dtype == np.float64
    assert table.columns["time"].tolist()[0].isoformat() == "2014-07-01T00:30:00"
    assert table.columns["time"].dtype == np.dtype("datetime64[us]")
    assert table.columns["name"].tolist() == ["a", "b"] and table.columns["name"].dtype == object
    assert table.report() == "2 rows, 0 malformed lines"


def test_malformed_lines_are_counted_and_the_first_named(tmp_path):
    lines = ["value", *(["1"] * 93), *(["x"] * 7)]
    path = written(tmp_path, "\n".join(lines))
    table = read_csv(path, {"value": "number"}, max_malformed=0.07)
    assert len(table) == 93 and table.malformed == 7
    assert table.first_malformed[0] == Malformed(95, "has value = 'x', expected a number")
    assert len(table.first_malformed) == 5
    assert table.report().startswith("93 rows, 7 malformed lines: line 95 has value = 'x', exp")
    with pytest.raises(InputError, match=r"93 rows and 7 malformed lines: line 95 .* 6\.9 % malf"):
        read_csv(path, {"value": "number"}, max_malformed=0.069)
    with pytest.raises(InputError, match="at most nan % malformed"):
        read_csv(path, {"value": "number"}, max_malformed=float("nan"))


def test_a_blank_line_counts_unless_at_the_end(tmp_path):
    path = written(tmp_path, '{"a": 1}\n\n{"a": 2}\n\n \n', "table.jsonl")
    table = read_json_lines(path, {"a": "number"}, max_malformed=0.5)
    assert table.columns["a"].tolist() == [1, 2] and table.first_malformed == ((2, "is blank"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty, expected a header with 'value'"),
        ("value\n", "holds no rows, expected at least one"),
        ("value\n\n\n", "holds no rows, expected at least one"),
        ("value\nNaN\n", "holds 0 rows and 1 malformed line: line 2 has value = 'NaN', expected a"),
        ("other\n1\n", "has the columns 'other', expected 'value'"),
    ],
)
def test_refused_in_one_sentence(tmp_path, text, message):
    with pytest.raises(InputError) as error:
        read_csv(written(tmp_path, text), {"value": "number"}, max_malformed=1.0)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_no_such_file(tmp_path):
    for path, reason in ((tmp_path / "no.csv", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(InputError, match=f"{path} cannot be read: {reason}"):
            read_csv(path, {"value": "number"})


@pytest.mark.slow
def test_all_series_of_nab(original_data):
    """Against Python's reader and NumPy's timestamps; 365,558 is the corpus' published size."""
    rows = 0
    for path in sorted((original_data / "nab" / "data").glob("*/*.csv")):
        table = read_csv(path, {"timestamp": "timestamp", "value": "number"}, max_malformed=0)
        rows += len(table)
        if path.stem in ("nyc_taxi", "art_daily_jumpsup"):
            with open(path) as file:
                times, values = zip(*list(csv.reader(file))[1:], strict=True)
            np.testing.assert_array_equal(table.columns["value"], np.array(values, np.float64))
            np.testing.assert_array_equal(table.columns["timestamp"], np.array(times, "M8[us]"))
    assert rows == 365_558


@pytest.mark.parametrize(
    ("text", "dialect", "values"),
    [
        ("value,name\n1.5,a\n", (",", "."), [1.5]),
        ("value;name\n1,5;a\n-2;b\n", (";", ","), [1.5, -2]),
        ("value;name\n1.5;a,b\n", (";", "."), [1.5]),
        ("value;name\n1,500;a\n", (";", ","), [1.5]),
        ("value\tname\n1,5\ta\n1,500\tb\n", ("\t", ","), [1.5, 1.5]),
        ('"value"|"name"\n"2,5e-1"|a\n', ("|", ","), [0.25]),
        ('value,name\n1.5,"a;b"\n', (",", "."), [1.5]),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_table_tells_how_it_is_written(tmp_path, text, dialect, values, zipped):
    data = b"\xef\xbb\xbf" + text.encode()
    path = tmp_path / "table"
    path.write_bytes(gzip.compress(data) if zipped else data)
    table = read_csv(path, {"value": "number", "name": "text"})
    assert table.dialect == dialect and table.columns["value"].tolist() == values


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("value\tname\n1,500\ta\n", {}),  # perhaps thousands
        ("value;name\n1,5;a\n1.234,5;b\n", {}),  # a point for thousands
        ("value;name\n1,5;a\n1.5;b\n", {"decimal": ","}),
        ("value;name\n1,5;a\n", {"decimal": "."}),
        ("value;name\n1,5;a\n", {"delimiter": ",", "decimal": ","}),
        ("value;name\n1,5;a\n", {"delimiter": ";;"}),
        ("value;name\n1,5;a\n", {"delimiter": ""}),
    ],
)
def test_a_number_that_could_be_another_is_refused(tmp_path, text, options):
    with pytest.raises(InputError):
        read_csv(written(tmp_path, text), {"value": "number", "name": "text"}, **options)


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:20] + data[30:]])
def test_a_damaged_gzip_file_is_refused(tmp_path, damage):
    path = tmp_path / "table.csv.gz"
    path.write_bytes(damage(gzip.compress(b"value\n" + b"1\n" * 5000)))
    with pytest.raises(InputError, match="is not a whole gzip file"):
        read_csv(path, {"value": "number"})


def test_neither_a_device_nor_a_pipe_is_read_for_ever(tmp_path):
    kinds: dict[str, Kind] = {"value": "number"}
    with pytest.raises(InputError, match="/dev/zero is a device, expected a file"):
        read_csv("/dev/zero", kinds)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe is empty"):
        read_csv(tmp_path / "pipe", kinds)
    both = os.open(tmp_path / "pipe", os.O_RDWR)  # a writer that is there before, as in <(…)
    os.write(both, b"value\n1\n")
    with open(tmp_path / "pipe", "rb") as held, opened(tmp_path / "pipe") as lines:
        os.close(both)
        assert list(lines) == [b"value\n", b"1\n"]
        held.close()
