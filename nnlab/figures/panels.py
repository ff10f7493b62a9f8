"""Panels of lines, for what an experiment plots against dimension, step or epoch.

They look like the figures of `nnlab.figures.plots`, and are a figure that owns its canvas.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nnlab.data.batches import check_shape
from nnlab.errors import InputError, needs
from nnlab.figures.plots import COLOURS, INK, STYLE

with needs("figures"):
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator


class Line(NamedTuple):
    """One line.

    Attributes:
        name: in the legend; lines without one are not in it.
        x, y: numbers, as many of the one as of the other.
        colour: its number in `COLOURS`, or None for the ink of the text.
        dashed: drawn dashed, as is usual for a bound or a formula.
    """

    name: str
    x: ArrayLike
    y: ArrayLike
    colour: int | None = None
    dashed: bool = False


class Panel(NamedTuple):
    """One pair of axes, with the scales of x and y; the legend is placed where it fits."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    scales: tuple[Literal["linear", "log"], Literal["linear", "log"]] = ("linear", "linear")


@matplotlib.rc_context(STYLE)
def figure_panels(panels: Sequence[Panel]) -> Figure:
    """Draw the panels, three in a row.

    Raises:
        InputError: there is no panel, one has no line, a line has more x than y or the other way
            round, or a colour is out of range.
    """
    if not panels or not all(panel.lines for panel in panels):
        raise InputError(
            f"{len(panels)} panels of {[len(panel.lines) for panel in panels]} lines were given to"
            " draw; expected one or more of each."
        )
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.2 * rows))
    figure.set_layout_engine("constrained", h_pad=0.08, w_pad=0.08)
    places = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in places[len(panels) :]:
        unused.remove()
    for axes, panel in zip(places, panels, strict=False):
        for line in panel.lines:
            check_shape(f"y of {line.name or 'a line'}", line.y, np.shape(line.x))
            axes.plot(
                line.x,
                line.y,
                color=_colour(line),
                linewidth=1.2,
                linestyle=(0, (4, 2)) if line.dashed else "-",
                label=line.name or None,
            )
        axes.set_xscale(panel.scales[0])
        if panel.scales[0] == "linear" and all(_are_counts(line.x) for line in panel.lines):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.set_yscale(panel.scales[1])
        axes.set_title(panel.title)
        axes.set_xlabel(panel.x_label)
        axes.set_ylabel(panel.y_label)
        if any(line.name for line in panel.lines):
            axes.legend(fontsize=8, frameon=True, framealpha=0.85, edgecolor="none")
    return figure


def _are_counts(x: ArrayLike) -> bool:
    return np.asarray(x).dtype.kind in "iu"


def _colour(line: Line) -> str:
    if line.colour is None:
        return INK
    if not 0 <= line.colour < len(COLOURS):
        raise InputError(
            f"A line's colour must be from 0 to {len(COLOURS) - 1}, not {line.colour}."
        )
    return COLOURS[line.colour]
