"""Pictures of what layers see (`nnlab.figures.seeing`): units side by side, a row for each kind.

From the top: the filters, as a mean over their inputs unless these are one or three; the maps of
one image; the input that moves the unit at the middle of its map most; and the nine patches of a
data set in which it responds most strongly. Each picture has its own range from black to white;
blue is where there is none, between them and beside an image.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from nnlab.errors import InputError, needs
from nnlab.figures.plots import STYLE
from nnlab.figures.seeing import (
    activations,
    cut_middle,
    maximise,
    patches,
    receptive_field,
    strongest,
)

with needs("figures"):
    import matplotlib
    from matplotlib.figure import Figure

_NINE = 9
_NOTHING = np.array([0.62, 0.79, 0.91])  # pale blue, between pictures and beside images


class Seen(NamedTuple):
    """What the units of a layer see.

    Attributes:
        name: above the pictures.
        filters: [units, height, width, channels], or None of a layer without one.
        maps: [units, rows, columns], of one image.
        maximisers: [units, height, width, channels].
        patches: [units, 9, height, width, channels].
        figures: numbers by their names, as `see` says.
    """

    name: str
    filters: np.ndarray | None
    maps: np.ndarray
    maximisers: np.ndarray
    patches: np.ndarray
    figures: dict[str, Any]


def see(
    key: jax.Array,
    name: str,
    model: nn.Module,
    variables: Any,
    layer: str,
    images: jax.Array,
    labels: Any,
    *,
    example: int = 0,
) -> Seen:
    """Look at a layer through images.

    Args:
        key: for noise.
        name: what the layer is called in pictures.
        model: called as `model.apply(variables, images)` for inference.
        variables: its parameters and statistics.
        layer: its path, joined by "/".
        images: [n, height, width, channels] as the network takes them, nine or more.
        labels: their classes, integers [n].
        example: number of the image whose maps are drawn.

    Returns:
        The pictures, and these figures: the receptive field, how many classes there are among a
        unit's nine strongest patches (mean over units), how its response to the maximiser compares
        with that to the strongest patch (median over units), and the correlation of the maximiser
        with the mean of the nine (mean over units), unless the receptive field is the whole image
        for several places of the map, which then see it from different sides.

    Raises:
        InputError: there is no such layer, or there are fewer than nine images.
    """
    maps = activations(model, variables, layer)
    shape = images.shape[1:]
    window = receptive_field(key, maps, shape)
    found = strongest(maps, images, _NINE)
    bounds = images.min((0, 1, 2)), images.max((0, 1, 2))
    whole, responses = maximise(key, maps, shape, bounds)
    of_example = np.asarray(jax.jit(maps)(images[example : example + 1])[0])
    best = cut_middle(whole, window, of_example.shape[:2])
    nine = patches(images, window, found)
    classes = [len(set(each)) for each in np.asarray(labels)[found.examples].tolist()]
    alike = [_correlation(one, many) for one, many in zip(best, nine, strict=True)]
    moves = window.step != (0, 0) or of_example.shape[:2] == (1, 1)
    figures = {
        "receptive field": "x".join(map(str, window.size)),
        "units": len(best),
        "classes among nine patches": float(np.mean(classes)),
        "response to the strongest patch": float(np.median(found.values[:, 0])),
        "response to the maximiser": float(np.median(responses)),
        "correlation of maximiser and patches": float(np.mean(alike)) if moves else "",
    }
    filters = _filters(variables["params"], layer)
    return Seen(name, filters, of_example.transpose(2, 0, 1), best, nine, figures)


def _correlation(one: np.ndarray, many: np.ndarray) -> float:
    """The correlation of a picture [h, w, c] and the mean of [n, h, w, c], where both are."""
    mean = np.where(np.isnan(many).all(0), np.nan, np.nansum(many, 0) / len(many))
    there = ~(np.isnan(one) | np.isnan(mean))
    a, b = one[there] - one[there].mean(), mean[there] - mean[there].mean()
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / scale) if scale > 0 else 0.0


def _filters(parameters: Any, layer: str) -> np.ndarray | None:
    """[units, height, width, channels] of a layer's kernel over places."""
    for name in layer.split("/"):
        parameters = parameters.get(name, {})
    kernels = [leaf for name, leaf in parameters.items() if name.endswith("kernel")]
    if len(kernels) != 1 or kernels[0].ndim != 4:
        return None
    filters = np.asarray(kernels[0]).transpose(3, 0, 1, 2)
    return filters if filters.shape[-1] in (1, 3) else filters.mean(-1, keepdims=True)


@matplotlib.rc_context({**STYLE, "axes.grid": False})
def figure_seen(layers: Sequence[Seen], units: int = 6, columns: int = 2) -> Figure:
    """Draw what the first units of each layer see.

    Args:
        layers: as `see` returns them, one or more.
        units: how many of each.
        columns: how many layers stand side by side.

    Raises:
        InputError: there is no layer.
    """
    if not layers:
        raise InputError("0 layers were given to draw; expected at least 1.")
    columns = min(columns, len(layers))
    rows = -(-len(layers) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.6 * rows), layout="constrained")
    found: Any = figure.subfigures(rows, columns, squeeze=False)
    blocks = list(found.flat)
    for block, seen in zip(blocks, layers, strict=False):
        block.suptitle(seen.name, fontsize=9, x=0.02, ha="left")
        nine = np.stack([_mosaic(list(each), 3, 1) for each in seen.patches[:units]])
        pictures = {
            "filter": None if seen.filters is None else seen.filters[:units],
            "map": seen.maps[:units, ..., None],
            "maximiser": seen.maximisers[:units],
            "nine patches": nine,
        }
        drawn = {name: each for name, each in pictures.items() if each is not None}
        places = block.subplots(len(drawn), 1, squeeze=False).flat
        for axes, (name, tiles) in zip(places, drawn.items(), strict=True):
            picture = _mosaic(list(tiles), len(tiles), max(1, tiles.shape[2] // 8))
            axes.imshow(_coloured(picture), interpolation="nearest")
            axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    return figure


def _mosaic(tiles: Sequence[np.ndarray], columns: int, gap: int) -> np.ndarray:
    """Tiles [h, w, c] in rows, each from 0 to 1, with gaps of NaN between them."""
    height, width, channels = tiles[0].shape
    rows = -(-len(tiles) // columns)
    picture = np.full(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, channels), np.nan
    )
    for number, tile in enumerate(tiles):
        low, high = np.nanmin(tile), np.nanmax(tile)
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        scaled = (tile - low) / (high - low if high > low else 1)
        picture[top : top + height, left : left + width] = scaled
    return picture


def _coloured(picture: np.ndarray) -> np.ndarray:
    """The picture [h, w, 1 or 3] in three colours, with `_NOTHING` where it is NaN."""
    three = np.broadcast_to(picture, (*picture.shape[:2], 3))
    return np.where(np.isnan(three).any(-1, keepdims=True), _NOTHING, three)
