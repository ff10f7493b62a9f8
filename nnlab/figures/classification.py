"""Figures of a classification: confusion matrices, reliability diagrams and wrong predictions.

They look like the figures of `nnlab.figures.plots`; the numbers come from
`nnlab.training.measures`.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nnlab.errors import InputError, needs
from nnlab.figures.plots import COLOURS, INK, STYLE

with needs("figures"):
    import matplotlib
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure

_NUMBERED = 12  # classes, up to which each cell of a confusion matrix says its number
_COLUMNS = 6  # of pictures


class Wrong(NamedTuple):
    """A wrong prediction.

    Attributes:
        picture: uint8 [height, width, channels], of 1 or 3 channels.
        true, predicted: names of classes.
        confidence: of the prediction, from 0 to 1.
    """

    picture: ArrayLike
    true: str
    predicted: str
    confidence: float


@matplotlib.rc_context({**STYLE, "axes.grid": False})
def figure_confusion(confusions: Mapping[str, ArrayLike], class_names: Sequence[str]) -> Figure:
    """Draw confusion matrices by network: true classes down, predicted ones across.

    The shade of a cell is its part of the true class. Up to twelve classes it holds its number of
    examples.

    Raises:
        InputError: there is none, or one is not [classes, classes].
    """
    classes = len(class_names)
    arrays: dict[str, Any] = {name: np.asarray(each) for name, each in confusions.items()}
    if not arrays or any(each.shape != (classes, classes) for each in arrays.values()):
        raise InputError(
            f"confusion matrices of {[each.shape for each in arrays.values()]} were given to draw,"
            f" expected one or more of {(classes, classes)}."
        )
    figure, panels = _panels(len(arrays), 3.4)
    for axes, (name, counts) in zip(panels, arrays.items(), strict=True):
        parts = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        # Transparent to ink, which reads on light and on dark.
        shades = np.zeros((*parts.shape, 4))
        shades[..., :3] = to_rgb(COLOURS[0])
        shades[..., 3] = np.sqrt(parts)  # so that rare confusions are seen
        axes.imshow(shades, interpolation="nearest")
        if classes <= _NUMBERED:
            for true, predicted in itertools.product(range(classes), repeat=2):
                if number := counts[true, predicted]:
                    axes.text(predicted, true, f"{number}", ha="center", va="center", fontsize=7)
        if classes <= 30:
            size = 8 if classes <= _NUMBERED else 6
            axes.set_xticks(range(classes), class_names, rotation=90, fontsize=size)
            axes.set_yticks(range(classes), class_names, fontsize=size)
        axes.set_title(name)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
    return figure


@matplotlib.rc_context(STYLE)
def figure_reliability(reliabilities: Mapping[str, Mapping[str, ArrayLike]]) -> Figure:
    """Draw accuracy against confidence in bins by network, and how many examples each bin holds.

    Args:
        reliabilities: fields of `nnlab.training.measures.Reliability` by network.

    Raises:
        InputError: there is none.
    """
    if not reliabilities:
        raise InputError("0 networks were given to draw; expected at least 1.")
    figure, panels = _panels(len(reliabilities), 3.0)
    for axes, (name, bins), colour in zip(
        panels, reliabilities.items(), itertools.cycle(COLOURS), strict=False
    ):
        count, accuracy = (np.array(bins[key], float) for key in ("count", "accuracy"))
        edges = np.linspace(0, 100, len(count) + 1)
        axes.stairs(
            100 * np.nan_to_num(accuracy),
            edges,
            fill=True,
            color=colour,
            alpha=0.6,
            label="predicted right",
        )
        axes.stairs(
            100 * count / count.sum(), edges, color=INK, linewidth=1.2, label="share of examples"
        )
        axes.plot([0, 100], [0, 100], color=INK, linewidth=0.8, linestyle=":")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_title(name)
        axes.set_xlabel("confidence / %")
        axes.set_ylabel("%")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    return figure


@matplotlib.rc_context({**STYLE, "axes.grid": False})
def figure_wrong(examples: Sequence[Wrong]) -> Figure:
    """Draw pictures with their true and predicted class and the confidence, six in a row.

    Raises:
        InputError: there is none.
    """
    if not examples:
        raise InputError("0 pictures were given to draw; expected at least 1.")
    rows = -(-len(examples) // _COLUMNS)
    figure = Figure(figsize=(8.4, 2 * rows), layout="constrained")
    places = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
    for unused in places[len(examples) :]:
        unused.remove()
    for axes, each in zip(places, examples, strict=False):
        picture = np.asarray(each.picture)
        grey = picture.shape[-1] == 1
        axes.imshow(picture[..., 0] if grey else picture, "gray", vmin=0, vmax=255)
        axes.set_title(
            f"{_short(each.true)}\nas {_short(each.predicted)}\n{each.confidence:.0%}",
            fontsize=7,
            loc="center",
        )
        axes.set_axis_off()
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"


def _panels(count: int, height: float) -> tuple[Figure, list[Any]]:
    columns = 2 if count in (2, 4) else min(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(8.4, height * rows))
    figure.set_layout_engine("constrained", h_pad=0.08, w_pad=0.08)
    places = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in places[count:]:
        unused.remove()
    return figure, places[:count]
