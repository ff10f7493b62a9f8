"""A picture of a learning-rate range test."""

from nnlab.errors import needs
from nnlab.figures.plots import COLOURS, STYLE
from nnlab.training.rate_finder import RangeTest

with needs("figures"):
    import matplotlib
    from matplotlib.figure import Figure


def figure_range_test(found: RangeTest) -> Figure:
    """Draw the losses of a range test over the learning rate, and the rate that it suggests."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5, 3.2))
        axes = figure.subplots()
        axes.semilogx(found.rates, found.losses, color=COLOURS[3], linewidth=0.8, label="batch")
        axes.semilogx(found.rates, found.smooth, color=COLOURS[0], label="smooth")
        if found.suggestion is not None:
            label = f"suggestion {found.suggestion:.2g}"
            axes.axvline(found.suggestion, color=COLOURS[2], linestyle="--", label=label)
        axes.set_xlabel("learning rate")
        axes.set_ylabel("training loss")
        axes.legend()
        return figure
