"""The progress line: full on a terminal, nothing at all elsewhere."""

import io
import re
import sys

import pytest
from rich.console import Console

from nnlab.runs.progress import progress

FIGURES = {"loss": 0.03125, "accuracy": 0.9891, "examples_per_second": 20_480.0}


def drawn(name="CNN", terminal=True, reports=(1, 2, 3), **environment):
    """What a run of four epochs writes."""
    file = io.StringIO()
    environment = {"TERM": "xterm"} | environment
    console = Console(file=file, force_terminal=terminal, width=80, _environ=environment)
    with progress(name, epochs=4, console=console) as report:
        for epoch in reports:
            report(epoch=epoch, **FIGURES)
    return file.getvalue()


def test_a_terminal_shows_every_figure():
    text = drawn()
    for part in ("CNN", "epoch 3/4", "loss 0.0312", "accuracy 98.91 %", "20,480 examples/s"):
        assert part in text
    assert "…" not in text, "cut at 80 columns"
    assert re.search(r"\d:\d\d:\d\d", text), "no time left after three reports"


def test_the_last_report_is_left_on_the_screen():
    assert drawn(reports=(1, 4)).rpartition("epoch ")[2].startswith("4/4")


def test_the_cursor_is_given_back_after_an_error():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, _environ={"TERM": "xterm"})
    with pytest.raises(KeyError), progress("CNN", epochs=4, console=console):
        raise KeyError
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert file.getvalue().rfind(shown) > file.getvalue().rfind(hidden) >= 0


def test_a_name_is_not_read_as_markup():
    assert "BNN [bold]" in drawn(name="BNN [bold]")


@pytest.mark.parametrize("case", [{"terminal": False}, {"TERM": "dumb"}])
def test_anything_else_shows_nothing(case):
    assert drawn(**case) == ""


def test_a_redirected_error_stream_stays_empty(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress("CNN", epochs=1) as report:
        report(epoch=1, **FIGURES)
    assert sys.stderr.getvalue() == ""  # pyright: ignore[reportAttributeAccessIssue]
