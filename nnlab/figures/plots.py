"""Figures that compare trained networks: learning curves, weights, features.

Every function takes the same list of `Network`s, gives one matplotlib `Figure` that owns its
canvas (no `pyplot`, so nothing global is touched and no display is needed), and keeps a network's
colour from figure to figure. Save one with `figure.savefig("curves.png", dpi=200)`. More networks
than colours (but for histograms), or a history with missing epochs, is an `InputError`.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nnlab.errors import InputError, needs
from nnlab.figures.colours import COLOURS as COLOURS
from nnlab.figures.distributions import fit_weights
from nnlab.figures.features import class_geometry, class_plane

with needs("figures"):
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

INK, RULE = "#24292f", "#c9ced4"  # text and lines; axes and grid
MINUS = "\N{MINUS SIGN}"
HISTORY = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": RULE,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "text.color": INK,
    "text.parse_math": False,  # names are plain text
    "xtick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.color": RULE,
    "ytick.labelcolor": INK,
}


class Network(NamedTuple):
    """What the figures and the report show of one trained network.

    Attributes:
        name: how it is called in every legend and table.
        history: {"train_loss", "train_accuracy", "test_loss", "test_accuracy"}, one value an
            epoch, or "validation_…" in place of "test_…"; accuracies are shares between 0 and 1,
            test values from evaluation mode.
        weights: any shape, the kernel of the largest layer; layers start at different scales, and
            a mixture of scales would look heavy-tailed whatever each layer is.
        features: [n, d], test features before the classifier.
        labels: integers [n].
        train_features: [m, d], what class directions and centres are fitted on.
        train_labels: integers [m].
    """

    name: str
    history: dict[str, list[float]]
    weights: ArrayLike
    features: ArrayLike
    labels: ArrayLike
    train_features: ArrayLike
    train_labels: ArrayLike


class Weights(NamedTuple):
    """The part of a `Network` that the histograms show."""

    name: str
    weights: ArrayLike


class Curve(NamedTuple):
    """The part of a `Network` that the learning curves show."""

    name: str
    history: Mapping[str, Sequence[float]]


@matplotlib.rc_context(STYLE)
def figure_curves(networks: Sequence[Network | Curve]) -> Figure:
    """Draw loss and accuracy by epoch; test or validation solid, training dashed.

    The loss axis is logarithmic where losses fall to a quarter or less.
    With five epochs or more the accuracy axis starts where the third epoch on needs it.
    """
    _check(networks)
    figure = Figure(figsize=(8.4, 3.4))
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    late, losses = [], []
    for network, colour in zip(networks, COLOURS, strict=False):
        dashed = {"linestyle": (0, (4, 2)), "linewidth": 1.1}
        for split, style in [("train", dashed), (_evaluated(network.history), {})]:
            loss = np.asarray(network.history[f"{split}_loss"], float)
            accuracy = 100 * np.asarray(network.history[f"{split}_accuracy"], float)
            marker = "o" if len(loss) < 4 else ""
            losses.append(loss[np.isfinite(loss)])
            for axes, values in [(loss_axes, loss), (accuracy_axes, accuracy)]:
                epochs = np.arange(1, len(values) + 1)
                axes.plot(epochs, values, color=colour, marker=marker, markersize=4, **style)
            late.append(accuracy[2:] if len(accuracy) >= 5 else accuracy)
    bottom, top = np.nanmin(np.concatenate(late)), np.nanmax(np.concatenate(late))
    margin = max(0.06 * (top - bottom), 0.1)
    accuracy_axes.set_ylim(max(bottom - margin, 0), min(top + margin, 100.5))
    accuracy_axes.set_ylabel("accuracy / %")
    loss_axes.set_ylabel("loss")
    every = np.concatenate(losses)
    if every.size and every.min() > 0 and every.max() >= 4 * every.min():
        loss_axes.set_yscale("log")
        loss_axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        loss_axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        loss_axes.yaxis.set_minor_locator(NullLocator())
    for axes in (loss_axes, accuracy_axes):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    lines = [
        Line2D([], [], color=colour, label=network.name)
        for network, colour in zip(networks, COLOURS, strict=False)
    ]
    evaluated = [_evaluated(network.history) for network in networks]
    lines += [
        Line2D([], [], color=INK, label=" or ".join(dict.fromkeys(evaluated))),
        Line2D([], [], color=INK, label="training", linestyle=(0, (4, 2)), linewidth=1.1),
    ]
    figure.legend(handles=lines, loc="outside upper center", ncols=min(len(lines), 5))
    return figure


@matplotlib.rc_context(STYLE)
def figure_weights(networks: Sequence[Network | Weights]) -> Figure:
    """Draw histograms of weights with fitted Laplace and Gaussian densities, for any networks.

    The title of each panel gives the mean log-likelihoods in nats a weight.
    """
    figure, panels = _panels(networks, height=2.8)
    for network, colour, axes in zip(networks, itertools.cycle(COLOURS), panels, strict=False):
        weights = np.asarray(network.weights, np.float64).ravel()
        fits = fit_weights(weights)
        low, high = np.quantile(weights, [0.001, 0.999])
        if low == high:  # nearly all weights are one value
            low, high = weights.min(), weights.max()
        edges = np.linspace(low, high, 82)
        inside, _ = np.histogram(weights, edges)
        density = inside / (weights.size * np.diff(edges))
        axes.stairs(density, edges, fill=True, color=colour, alpha=0.45)
        grid = np.sort(np.append(np.linspace(low, high, 401), fits.laplace.location))
        axes.plot(grid, fits.laplace.density(grid), color=INK, linewidth=1.2)
        axes.plot(grid, fits.gaussian.density(grid), color=INK, linewidth=1.2, linestyle=":")
        likelihoods = ", ".join(
            f"{fit.family.capitalize()} {fit.log_likelihood:.3f}" for fit in reversed(fits)
        )
        axes.set_title(network.name + "\n" + likelihoods.replace("-", MINUS))
        axes.set_xlabel("weight")
        axes.set_ylabel("density")
        axes.set_ylim(0)
    lines = [
        Line2D([], [], color=INK, linewidth=1.2, label="fitted Laplace"),
        Line2D([], [], color=INK, linewidth=1.2, linestyle=":", label="fitted Gaussian"),
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=2)
    return figure


@matplotlib.rc_context(STYLE)
def figure_features(networks: Sequence[Network]) -> Figure:
    """Draw test features in the plane of their class means, coloured by class.

    The title of each panel gives the accuracies of the nearest class direction by angle and of the
    nearest class centre by L1 distance (`nnlab.figures.features`). Both axes have one scale, so
    angles are true. If there are more than ten classes, the ten lowest labels are drawn.
    """
    _check(networks)
    figure, panels = _panels(networks, height=3.9)
    classes = np.unique(np.concatenate([np.ravel(network.labels) for network in networks]))
    shown = classes[: len(COLOURS)]
    for network, axes in zip(networks, panels, strict=True):
        labels = np.asarray(network.labels)
        plane = class_plane(network.features, labels)
        cosine, l1 = class_geometry(
            network.train_features, network.train_labels, network.features, network.labels
        )
        drawn = np.flatnonzero(np.isin(labels, shown))
        drawn = np.random.default_rng(0).permutation(drawn)  # no class lies on top of the others
        colours = np.array(COLOURS)[np.searchsorted(shown, labels[drawn])]
        x, y = plane.coordinates[drawn].T
        axes.scatter(x, y, 5, colours, linewidths=0, alpha=0.7, rasterized=True)
        axes.plot(0, 0, "+", color=INK, markersize=11, markeredgewidth=1.4)
        axes.set_aspect("equal", "datalim")
        axes.set_title(f"{network.name}\nangle {cosine.accuracy:.1%}, L1 {l1.accuracy:.1%}")
        flat = np.shape(network.features)[1] == 2
        axes.set_xlabel("feature 1" if flat else f"axis 1 (plane: {plane.share:.0%})")
        axes.set_ylabel("feature 2" if flat else "axis 2")
    dots = [
        Line2D([], [], color=colour, linestyle="", marker="o", markersize=5, label=str(label))
        for label, colour in zip(shown, COLOURS, strict=False)
    ]
    dots.append(Line2D([], [], color=INK, linestyle="", marker="+", markersize=9, label="origin"))
    figure.legend(
        handles=dots, loc="outside lower center", ncols=11, handletextpad=0.1, columnspacing=1
    )
    return figure


def _panels(networks: Sequence[Network | Weights], height: float):
    if not networks:
        raise InputError("0 networks were given to draw; expected at least 1.")
    columns = 2 if len(networks) == 4 else min(len(networks), 3)
    rows = -(-len(networks) // columns)
    figure = Figure(figsize=(8.4 if columns > 1 else 6.0, height * rows))
    figure.set_layout_engine("constrained", h_pad=0.08)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in panels[len(networks) :]:
        unused.remove()
    return figure, panels[: len(networks)]


def _evaluated(history: Mapping[str, Any]) -> str:
    """The set that was evaluated after each epoch."""
    return "validation" if "validation_loss" in history else "test"


def _check(networks: Sequence[Network | Curve]) -> None:
    if not 1 <= len(networks) <= len(COLOURS):
        raise InputError(
            f"{len(networks)} networks were given to draw; expected 1 to {len(COLOURS)}."
        )
    for network in networks:
        keys = [key.replace("test", _evaluated(network.history)) for key in HISTORY]
        lengths = {key: len(network.history.get(key, [])) for key in keys}
        if len(set(lengths.values())) != 1 or not lengths["train_loss"]:
            raise InputError(
                f"the history of {network.name} has lengths {lengths}; expected the same number of"
                " epochs, one or more, for each."
            )
