"""Learning curves of several groups of trainings, each as its mean and its deviation over seeds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nnlab.errors import InputError, needs
from nnlab.figures.plots import COLOURS, STYLE

with needs("figures"):
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter


class Group(NamedTuple):
    """Trainings that differ in their seed alone.

    Attributes:
        name: in the legend.
        histories: for each training one value an epoch of each metric; accuracies are shares.
    """

    name: str
    histories: Sequence[Mapping[str, Sequence[float]]]


def mean_and_deviation(curves: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and sample deviation by epoch, float64 [epochs], of the curves that reach it.

    The deviation of a single curve is NaN. Curves may have different numbers of epochs.
    """
    epochs = max(map(len, curves))
    reaching = [[c[i] for c in curves if len(c) > i] for i in range(epochs)]
    means = [np.mean(values) for values in reaching]
    deviations = [np.std(v, ddof=1) if len(v) > 1 else np.nan for v in reaching]
    return np.array(means), np.array(deviations)


@matplotlib.rc_context(STYLE)
def figure_comparison(groups: Sequence[Group], metrics: Sequence[str]) -> Figure:
    """Draw each metric by epoch, a panel each: means as lines, one deviation around as a band.

    Losses have a logarithmic scale where they are positive; accuracies are in percent.

    Raises:
        InputError: there are no groups or more than colours, no metrics, or a training lacks one.
    """
    if not 1 <= len(groups) <= len(COLOURS):
        raise InputError(
            f"{len(groups)} groups were given to draw; expected 1 to {len(COLOURS)}, such as those"
            " of fewer runs."
        )
    if not metrics:
        raise InputError("0 metrics were given to draw; expected at least 1.")
    figure = Figure(figsize=(max(4.2 * len(metrics), 6.0), 3.6))
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        scale = 100 if metric.endswith("accuracy") else 1
        least = np.inf
        for group, colour in zip(groups, COLOURS, strict=False):
            if not all(history.get(metric) for history in group.histories):
                raise InputError(f"a training of {group.name} has no {metric} to draw.")
            mean, deviation = mean_and_deviation([h[metric] for h in group.histories])
            mean, deviation = scale * mean, scale * deviation
            epochs = np.arange(1, len(mean) + 1)
            marker = "o" if len(mean) < 4 else ""
            axes.plot(epochs, mean, color=colour, label=group.name, marker=marker, markersize=4)
            # A band below 0 would have no place on a logarithmic scale.
            low = mean - deviation
            if metric.endswith("loss"):
                low = np.maximum(low, mean / 10)
            axes.fill_between(epochs, low, mean + deviation, color=colour, alpha=0.2, linewidth=0)
            least = min(least, float(np.nanmin(mean)))
        axes.set_xlabel("epoch")
        axes.set_ylabel(metric.replace("_", " ") + (" / %" if scale == 100 else ""))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        if metric.endswith("loss") and least > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(len(names), 3))
    return figure
