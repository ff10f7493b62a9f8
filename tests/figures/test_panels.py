"""Panels hold the lines that they were given."""

from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from nnlab.errors import InputError
from nnlab.figures.panels import Line, Panel, figure_panels
from nnlab.figures.plots import COLOURS, INK

LINES = [Line("rise", [1, 2, 3], [1, 10, 100], 2), Line("", [1, 3], [5, 5], dashed=True)]


def test_lines_scales_and_words():
    panels = [
        Panel("left", "step", "loss", LINES, ("linear", "log")),
        Panel("right", "x", "y", LINES[1:]),
    ]
    figure = figure_panels(panels)
    FigureCanvasAgg(figure).draw()
    axes: Any = figure.axes
    left, right = axes
    rise, level = left.lines
    assert np.asarray(rise.get_ydata()).tolist() == [1, 10, 100]
    assert (rise.get_color(), level.get_color()) == (COLOURS[2], INK)
    assert rise.get_linestyle() == "-" != level.get_linestyle()
    assert (left.get_xscale(), left.get_yscale()) == ("linear", "log")
    assert (left.get_title(loc="left"), left.get_xlabel(), left.get_ylabel()) == (
        *("left", "step", "loss"),
    )
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["rise"]
    assert right.get_legend() is None and len(right.lines) == 1


@pytest.mark.parametrize(("count", "places"), [(1, (1, 1)), (3, (1, 3)), (4, (2, 3))])
def test_three_stand_in_a_row(count, places):
    axes: Any = figure_panels([Panel("", "x", "y", LINES)] * count).axes
    assert len(axes) == count
    assert axes[0].get_gridspec().get_geometry() == places


@pytest.mark.parametrize("panels", [[], [Panel("", "", "", [])]])
def test_nothing_to_draw_is_refused(panels):
    with pytest.raises(InputError, match=r"lines were given to draw; expected one or more of each"):
        figure_panels(panels)


def test_a_colour_that_there_is_not_is_refused():
    with pytest.raises(InputError, match=r"^A line's colour must be from 0 to 9, not 10\.$"):
        figure_panels([Panel("", "", "", [Line("", [1], [1], 10)])])
