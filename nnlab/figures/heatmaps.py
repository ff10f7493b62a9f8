"""Heat maps one above the other along one axis of time, such as where a memory is read."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nnlab.errors import InputError, needs
from nnlab.figures.plots import STYLE

with needs("figures"):
    import matplotlib
    from matplotlib.figure import Figure


class HeatMap(NamedTuple):
    """One map.

    Attributes:
        title: above it.
        y_label: what its rows are.
        values: [time, rows], drawn with time to the right and row 0 at the top.
        limits: the values of white and of black.
    """

    title: str
    y_label: str
    values: ArrayLike
    limits: tuple[float, float] = (0.0, 1.0)


@matplotlib.rc_context({**STYLE, "axes.grid": False})
def figure_heatmaps(maps: Sequence[HeatMap], x_label: str = "time") -> Figure:
    """Draw the maps, each as high as its rows ask for, within limits.

    Raises:
        InputError: there is no map, or the values of one are not [time, rows] or of another time
            than those of the first.
    """
    arrays: list[Any] = [np.asarray(each.values) for each in maps]
    if not arrays or any(a.ndim != 2 or not a.size or len(a) != len(arrays[0]) for a in arrays):
        raise InputError(
            f"maps of {[a.shape for a in arrays]} were given to draw; expected one or more of"
            " [time, rows], all of one time."
        )
    heights = [min(2.4, max(0.5, 0.06 * a.shape[1])) for a in arrays]
    width = min(12.0, max(4.0, 1.2 + 0.1 * len(arrays[0])))
    figure = Figure(figsize=(width, sum(heights) + 0.4 * len(heights) + 0.3))
    figure.set_layout_engine("constrained", h_pad=0.03, w_pad=0.08)
    grid = figure.add_gridspec(len(arrays), 1, height_ratios=heights)
    for row, (each, values) in enumerate(zip(maps, arrays, strict=True)):
        axes = figure.add_subplot(grid[row, 0])
        low, high = each.limits
        axes.imshow(values.T, "gray_r", aspect="auto", interpolation="nearest", vmin=low, vmax=high)
        axes.set_title(each.title)
        axes.set_ylabel(each.y_label)
        if row + 1 < len(arrays):
            axes.set_xticklabels([])
        else:
            axes.set_xlabel(x_label)
    return figure
