"""Tables of texts: what is read, and where what is wrong stands."""

import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.sequences.text_files import read_table

COLUMNS = ("sentence", "label")


@pytest.fixture
def written(tmp_path):
    def write(text, name="a.tsv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_quotation_mark_is_a_character_and_only_a_line_feed_ends_a_line(written):
    text = '\ufeffid\tsentence\tlabel\r\n1\t"so good\t1\r\n\r\n2\ta\u2028b\x85"" \t0\r\n'
    table = read_table(written(text), COLUMNS)
    assert table.texts("sentence") == ['"so good', 'a\u2028b\x85""']
    np.testing.assert_array_equal(table.labels("label", 2), np.array([1, 0], np.int32), strict=True)
    assert table.lines == [2, 4] and table.place(1).endswith("a.tsv, line 4")


def test_quoted_values_hold_tabs_breaks_and_quotation_marks(written):
    text = 'sentence\tlabel\n"a\tb\n""c"""\tbad\nd\tgood\n'
    table = read_table(written(text), COLUMNS, quoted=True)
    assert table.texts("sentence") == ['a\tb\n"c"', "d"] and table.lines == [2, 4]
    assert table.labels("label", ("bad", "good")).tolist() == [0, 1]


def test_json_lines(written):
    text = '{"label": 1, "sentence": "a\\"b", "id": 7}\n\n{"sentence": "c", "label": 0}\n'
    table = read_table(written(text, "a.jsonl"), COLUMNS)
    assert table.texts("sentence") == ['a"b', "c"] and table.lines == [1, 3]
    assert table.labels("label", 2).tolist() == [1, 0] and len(table) == 2


HEAD = "sentence\tlabel\n"
BAD = {
    "another column": ("text\tlabel\na\t1\n", ["line 2", "'sentence'", "'text', 'label'"]),
    "a value too few": (HEAD + "a\t1\nb\n", ["line 3", "1 values", "the 2 of"]),
    "a value too many": (HEAD + "a\tb\t1\n", ["line 2", "3 values"]),
    "no rows": (HEAD, ["no rows"]),
    "one name twice": ("label\tlabel\n0\t1\n", ["line 1", "same name"]),
    "an empty text": (HEAD + "a\t1\n \t0\n", ["line 3", "empty"]),
    "a label out of range": (HEAD + "a\t1\nb\t2\n", ["line 3", "'2'", "0 to 1"]),
    "no label": (HEAD + "a\t\n", ["line 2", "''", "0 to 1"]),
    "a label that is none": (HEAD + "a\t-1\n", ["line 2", "'-1'"]),
    "a fraction": (HEAD + "a\t1.0\n", ["line 2", "'1.0'"]),
    "bytes": (b"sentence\tlabel\n\xff\t1\n", ["UTF-8"]),
}
BAD_LINES = {
    "no JSON": ('{"sentence": "a", "label": 1}\n{"sentence\n', ["line 2", "no JSON"]),
    "a list": ('["a", 1]\n', ["line 1", "object"]),
    "a missing key": ('{"label": 1}\n', ["line 1", "'sentence'", "'label'"]),
    "no text": ('{"sentence": 3, "label": 1}\n', ["line 1", "sentence is 3"]),
    "a truth value": ('{"sentence": "a", "label": true}\n', ["line 1", "True"]),
}


@pytest.mark.parametrize("name", [*BAD, *BAD_LINES])
def test_what_is_wrong_is_named_with_file_and_line(name, written):
    text, words = (BAD | BAD_LINES)[name]
    path = written(text, "a.tsv" if name in BAD else "a.jsonl")
    with pytest.raises(InputError) as raised:
        table = read_table(path, COLUMNS)
        table.texts("sentence")
        table.labels("label", 2)
    said = str(raised.value)
    assert str(path) in said and "\n" not in said and all(word in said for word in words), said


def test_stray_quotes_and_endings(written):
    path = written(HEAD + 'a\t1\n"b\t0\nc\t1\n')
    with pytest.raises(InputError, match=r"line 3: a quoted value does not end"):
        read_table(path, COLUMNS, quoted=True)
    assert read_table(path, COLUMNS).texts("sentence")[1] == '"b'
    with pytest.raises(InputError, match=r"\.csv, expected \.tsv or \.jsonl"):
        read_table(written(HEAD, "a.csv"), COLUMNS)
