"""The reader of NAB's corpus."""

import json

import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.series.nab_corpus import load_nab

ROWS = "timestamp,value\n" + "".join(f"2014-04-01 00:{5 * i:02d}:00,{i}.5\n" for i in range(10))
WINDOW = ["2014-04-01 00:10:00.000000", "2014-04-01 00:25:00.000000"]


def write(folder, rows=ROWS, windows=(WINDOW,)):
    (folder / "data/some").mkdir(parents=True)
    (folder / "labels").mkdir()
    (folder / "data/some/a.csv").write_text(rows)
    labels = json.dumps({"some/a.csv": windows})
    (folder / "labels/combined_windows.json").write_text(labels)


def test_a_small_corpus(tmp_path):
    write(tmp_path / "nab")
    (series,) = load_nab(tmp_path)
    assert series.name == "some/a.csv"
    np.testing.assert_array_equal(series.values, np.arange(10) + 0.5)
    assert series.times[3] == np.datetime64("2014-04-01T00:15:00")
    assert series.windows == [(2, 5)]


@pytest.mark.parametrize(
    ("rows", "windows", "said"),
    [
        ("", [], "has 0 rows"),
        ("timestamp,value\n", [], "has 0 rows"),
        (ROWS.replace("3.5", "nan"), [], "1 of them not finite"),
        (ROWS.replace("3.5", "much"), [], "not a time and a number"),
        (ROWS.replace("2014-04-01 00:15:00", "noon"), [], "not a time and a number"),
        (ROWS.replace(",3.5", ""), [], "not a time and a number"),
        (ROWS, [["2015-04-01 00:10:00", "2015-04-01 00:25:00"]], "no rows for the window"),
        (ROWS, [5], "no rows for the window"),
        (ROWS, [WINDOW[::-1]], "a.csv: Window 0 is from row 5 to row 2"),
        (ROWS, [WINDOW, WINDOW], "a.csv: Window 1 is"),
        (ROWS.replace("2014-04-01 00:15:00", ""), [], "a row without a time"),
    ],
)
def test_a_file_that_is_not_right_gets_one_sentence(tmp_path, rows, windows, said):
    write(tmp_path, rows, windows)
    with pytest.raises(InputError, match=said):
        load_nab(tmp_path)


def test_a_missing_corpus_names_where_it_was_looked_for(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        load_nab(tmp_path)
    write(tmp_path)
    (tmp_path / "data/some/a.csv").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        load_nab(tmp_path)
    (tmp_path / "labels/combined_windows.json").write_text("[]")
    with pytest.raises(InputError, match="not a JSON object"):
        load_nab(tmp_path)
    (tmp_path / "labels/combined_windows.json").write_text("{}")
    with pytest.raises(InputError, match="names no file"):
        load_nab(tmp_path)


def test_the_published_corpus(original_data):
    corpus = load_nab(original_data)
    assert len(corpus) == 58
    assert sum(len(series.windows) for series in corpus) == 116
    assert sum(len(series.values) for series in corpus) == 365_558
    assert all(np.isfinite(series.values).all() for series in corpus)
