"""Log text to rows, events and sessions: by hand, and the 2,000 labelled lines of loghub."""

import csv
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.errors import InputError
from nnlab.series import (
    Event,
    LogTransformation,
    Malformed,
    Row,
    Templates,
    load_hdfs,
    log_rows,
    mine_templates,
    next_event_windows,
    read_log,
    sessions_by_name,
)
from nnlab.series.logs import HDFS_BLOCK, HDFS_FORMAT
from nnlab.series.templates import HDFS_MASKS

LINE = (
    b"081109 203615 148 INFO dfs.DataNode$PacketResponder: Received block blk_38 from /10.0.0.1\r\n"
)
TEMPLATES = Templates(("Received block <*> from /<*>", "<*> exception", "disk <*>"), HDFS_MASKS)


def test_a_line_by_hand():
    (row,) = log_rows([LINE], HDFS_FORMAT, first_line=7)
    assert row == Row(
        7,
        {
            "Date": "081109",
            "Time": "203615",
            "Pid": "148",
            "Level": "INFO",
            "Component": "dfs.DataNode$PacketResponder",
            "Content": "Received block blk_38 from /10.0.0.1",
        },
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "is blank"),
        (b"\xff", "is not UTF-8 from byte 1 on"),
        (b"081109 203615 148 INFO no colon", f"is not of the format {HDFS_FORMAT}"),
    ],
)
def test_a_malformed_line(line, reason):
    found = list(log_rows([LINE, line, LINE], HDFS_FORMAT))
    assert found[1] == Malformed(2, reason) and found[2].line == 3


@pytest.mark.parametrize("log_format", ["", "Content", "<a> <a>", "<a b>", "<>"])
def test_a_format_that_cannot_be_used(log_format):
    with pytest.raises(InputError, match="expected at least one, each once, in letters"):
        list(log_rows([], log_format))


def test_byte_order_marks_and_a_few_bytes_of_another_encoding_spoil_no_line():
    lines = [b"\xef\xbb\xbf1 ready", "2 für alle bereit".encode("latin-1"), b"3 \xff\xfe\x80ab"]
    good, replaced, bad = log_rows(lines, "<n> <rest>")
    assert good == Row(1, {"n": "1", "rest": "ready"})
    assert replaced == Row(2, {"n": "2", "rest": "f\ufffdr alle bereit"})
    assert bad == Malformed(3, "is not UTF-8 from byte 3 on")


def test_a_format_is_no_regular_expression():
    (row,) = log_rows([b"(a)[1]  x*y z"], "(<first>)[<n>] <rest>")
    assert row == Row(1, {"first": "a", "n": "1", "rest": "x*y z"})


def test_events_by_hand():
    contents = [
        "Received block blk_-5 from /10.251.73.220:50010",
        "Received block blk_-5 from here",
        "null exception",
        "disk exception",
        "disk full",
        "disk",
        "",
    ]
    # "disk exception" fits two templates of one varying token each: the first counts.
    assert [TEMPLATES.event(content) for content in contents] == [0, 3, 1, 1, 2, 3, 3]
    assert Templates(("a <*>", "a b")).event("a b") == 1  # nothing varies
    assert Templates(("",)).event("  ") == 0
    assert Templates.from_json(TEMPLATES.to_json()) == TEMPLATES


tokens = st.lists(st.sampled_from(["a", "b", "<*>"]), max_size=3).map(" ".join)


@settings(max_examples=30, deadline=None)
@given(st.lists(tokens, unique=True), st.lists(st.sampled_from("abc"), max_size=3).map(" ".join))
def test_the_index_changes_nothing(templates, content):
    """Against all templates one by one."""

    def fits(template):
        pairs = zip(template.split(), content.split(), strict=True)
        same_length = len(template.split()) == len(content.split())
        return same_length and all(a in (b, "<*>") for a, b in pairs)

    fitting = [(t.count("<*>"), event) for event, t in enumerate(templates) if fits(t)]
    expected = min(fitting)[1] if fitting else len(templates)
    assert Templates(tuple(templates)).event(content) == expected


def test_templates_that_cannot_be_used():
    with pytest.raises(InputError, match="a template comes twice"):
        Templates(("a", "a"))
    with pytest.raises(InputError, match=r"mask '\(' is no regular expression"):
        Templates(("a",), ("(",))


def test_without_the_miner(monkeypatch):
    for module in ("drain3", "drain3.drain"):  # a test before this one may have imported both
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"drain3 .*: pip install .*\[series\]'"):
        mine_templates(["a b"])


def test_mined_templates_by_hand():
    pytest.importorskip("drain3")
    contents = ["block blk_1 is full", "block blk_2 is full", "disk a is lost", "disk b is lost"]
    templates = mine_templates(iter(contents), (r"blk_\d+",))
    assert templates.templates == ("block <*> is full", "disk <*> is lost")
    with pytest.raises(InputError, match="there are no lines to mine templates from"):
        mine_templates([])


def loghub(original_data):
    folder = original_data / "hdfs" / "loghub-2k"
    with open(folder / "HDFS_2k.log_structured.csv", newline="") as file:
        labelled = list(csv.DictReader(file))
    return read_log(folder / "HDFS_2k.log", HDFS_FORMAT, max_malformed=0), labelled


def test_the_headers_of_loghub(original_data):
    table, labelled = loghub(original_data)
    assert len(table) == 2000 and table.malformed == 0
    for name in ("Date", "Time", "Pid", "Level", "Component", "Content"):
        assert table.columns[name].tolist() == [line[name] for line in labelled], name


def test_grouping_accuracy_on_loghub(original_data):
    """Drain's published accuracy on these lines is 0.998: five of the 2,000 are grouped wrongly.

    A line is grouped rightly if its group holds exactly the lines with its label. All five come
    from one statement with lists of different lengths ("ask <*> to delete <*> <*> …").
    """
    pytest.importorskip("drain3")
    table, labelled = loghub(original_data)
    contents = table.columns["Content"].tolist()
    templates = mine_templates(contents, HDFS_MASKS)
    events = [templates.event(content) for content in contents]
    assert templates.unknown not in events
    labels = [line["EventId"] for line in labelled]
    group, label = (
        {name: {i for i, other in enumerate(names) if other == name} for name in set(names)}
        for names in (events, labels)
    )
    pairs = zip(events, labels, strict=True)
    assert sum(group[event] == label[name] for event, name in pairs) == 1995


def test_sessions_by_hand():
    contents = ["blk_1 made", "ask to delete blk_1 blk_-2 blk_1", "idle", "blk_-2 made"]
    sessions, nameless = sessions_by_name(contents, [0, 1, 2, 0], HDFS_BLOCK)
    assert sessions == {"blk_1": [0, 1], "blk_-2": [1, 0]} and nameless == 1


def test_windows_of_events_by_hand():
    windows = next_event_windows([[5, 6, 7], [], [8]], 2, end=9)
    assert windows.before.tolist() == [[-1, -1], [-1, 5], [5, 6], [6, 7], *[[-1, -1]] * 2, [-1, 8]]
    assert windows.next.tolist() == [5, 6, 7, 9, 9, 8, 9]
    assert windows.session.tolist() == [0, 0, 0, 0, 1, 2, 2]
    assert {array.dtype for array in windows} == {np.dtype(np.int32)}
    without = next_event_windows([[], [5, 6]], 2)
    assert without.before.tolist() == [[-1, -1], [-1, 5]] and without.next.tolist() == [5, 6]
    assert without.session.tolist() == [1, 1]
    with pytest.raises(InputError, match="the sessions hold no events"):
        next_event_windows([[]], 2)


def test_a_log_transformation_by_hand():
    record = LogTransformation(HDFS_FORMAT, TEMPLATES, HDFS_BLOCK, window=4)
    assert LogTransformation.from_json(record.to_json()) == record
    assert record.apply_line(LINE) == Event(0, ("blk_38",))
    assert record.apply_line(LINE.replace(b"Received", b"Lost")) == Event(3, ("blk_38",))
    assert record.apply_line(b"x", 12) == Malformed(12, f"is not of the format {HDFS_FORMAT}")
    whole = LogTransformation("<Content>", TEMPLATES)
    assert whole.apply_line(b"disk full") == Event(2, ("",))


def test_log_transformations_that_cannot_be_used():
    for fields, message in [
        ({"window": 0}, "window is 0, expected at least 1"),
        ({"session": "("}, r"'\(' is no regular expression"),
        ({"log_format": "x"}, "the format 'x' has the fields none"),
    ]:
        with pytest.raises(InputError, match=message):
            LogTransformation(**{"log_format": "<C>", "templates": TEMPLATES} | fields)


def test_sessions_of_hdfs(original_data, tmp_path):
    """The counts are the paper's."""
    normal, abnormal = load_hdfs(original_data)
    assert (len(normal), len(abnormal)) == (4855, 16838)
    assert normal[0][:5] == [5, 5, 5, 22, 11]
    for text, message in [(b"5 x\n", "line 1, is b'5 x', expected"), (b"", "is empty, expected")]:
        (tmp_path / "hdfs_train").write_bytes(text)
        (tmp_path / "hdfs_test_abnormal").write_bytes(b"1\n")
        with pytest.raises(InputError, match=message):
            load_hdfs(tmp_path)
