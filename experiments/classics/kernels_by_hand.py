"""What do kernels written by hand become in an adder?

Answer: Smoothing stays smoothing, with its sign turned over. Sobel's and Laplace's kernels stop
being edge detectors, because brightness shows through them (correlations of -0.96 and -0.87); two
adders with the pictures of an edge, one less the other, are Prewitt's kernel exactly. And an adder
finds a patch of the photograph where it is, while a product is greatest where the sky is brightest,
175 pixels away.

Known: a cross-correlation is a sum of products, so that its response to a patch grows with the
brightness of the patch (Gonzalez & Woods, Digital Image Processing, 4th edition, 2018, chapters 3
and 12). Why an adder with large weights is a product with their signs, and two adders a kernel of
edges, are equations 4 and 5 of `nnlab.classics.filters`.

The picture is scikit-learn's photograph of a Chinese temple in grey, 150x225 pixels between 0 and
1. Correlations are those of two responses over all places, "brightness" being the mean of a window.
A circle marks the greatest response to the patch that is framed in the picture.

Ours, nothing random in it, 4 seconds of processor time on two cores of an AMD EPYC
(`results/kernels_by_hand.json` and `.png`).

    python experiments/classics/kernels_by_hand.py
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nnlab import figures, runs
from nnlab.classics import filters
from nnlab.errors import needs
from nnlab.figures.plots import COLOURS, STYLE
from nnlab.ops.adder import adder_conv
from nnlab.ops.convolution import conv
from nnlab.runs.script import run

EDGES = "two edges"
PATCH, SIDE = (74, 52), 15  # where a patch of the photograph is its own kernel


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/kernels_by_hand"


def main(config: Config) -> None:
    with needs("vision"):
        from sklearn.datasets import load_sample_image
    photograph = load_sample_image("china.jpg")[60:360, 130:580] / np.float32(255)
    grey = photograph @ np.array([0.299, 0.587, 0.114], np.float32)
    grey = grey.reshape(150, 2, 225, 2).mean((1, 3))
    with config.open() as record:
        responses = respond(grey)
        for row in compared(responses):
            record.row(row)
        record.figure(figure(grey, responses))
        figures.print_table(record.rows())


def respond(grey: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Return kernels by hand and the responses of a product and of an adder to each.

    The picture [height, width] is between 0 and 1, and only whole windows count.
    """

    def by(product, kernel):
        y = product(grey[None, ..., None], kernel[..., None, None], padding="VALID")
        return np.asarray(y)[0, ..., 0]

    row, column = PATCH
    edge = np.tile(np.array([0, 0.5, 1], np.float32), (3, 1))
    kernels = {
        "Gaussian": filters.gaussian(7, 1.5),
        "Sobel": filters.SOBEL,
        "Laplace": filters.LAPLACE,
        EDGES: 2 * edge - 1,
        "patch": grey[row : row + SIDE, column : column + SIDE],
    }
    found = {
        name: {"kernel": kernel, "float": by(conv, kernel), "adder": by(adder_conv, kernel)}
        for name, kernel in kernels.items()
    }
    found[EDGES]["adder"] = by(adder_conv, edge) - by(adder_conv, 1 - edge)
    for each in found.values():
        each["mean"] = by(conv, np.full_like(each["kernel"], 1 / each["kernel"].size))
    return found


def compared(responses: Mapping[str, Mapping[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Return correlations of responses, and how far the largest is from where the patch is."""

    def alike(a, b):
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    rows = []
    for name, each in responses.items():
        row: dict[str, Any] = {"kernel": name, "adder, float": alike(each["adder"], each["float"])}
        for product in ("float", "adder"):
            row[f"{product}, brightness"] = alike(each[product], each["mean"])
        for product in ("float", "adder"):
            best = np.unravel_index(np.argmax(each[product]), each[product].shape)
            far = math.dist(best, PATCH) if name == "patch" else ""
            row[f"{product}'s best, off by / pixels"] = far
        rows.append(row)
    return rows


@matplotlib.rc_context(STYLE)
def figure(grey: np.ndarray, responses: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Draw the photograph, the kernels, and the responses to each."""
    drawn = Figure(figsize=(11, 4.6))
    grid = drawn.subplots(3, len(responses) + 1)
    for column, (name, each) in enumerate(responses.items(), 1):
        for axes, part in zip(grid[:, column], ("kernel", "float", "adder"), strict=True):
            low, high = np.percentile(each[part], (0.5, 99.5))
            axes.imshow(each[part], "gray", vmin=low, vmax=high)
        grid[0, column].set_title(name)
        grid[0, column].spines[:].set_visible(True)
        if name == "patch":
            for axes, part in zip(grid[1:, column], ("float", "adder"), strict=True):
                row, place = np.unravel_index(np.argmax(each[part]), each[part].shape)
                axes.plot(place, row, "o", mfc="none", mec=COLOURS[1], ms=9, mew=1.6)
    grid[1, 0].imshow(grey, "gray", vmin=0, vmax=1)
    grid[1, 0].set_title("picture")
    row, place = PATCH
    corner = (place - 0.5, row - 0.5)
    grid[1, 0].add_patch(Rectangle(corner, SIDE, SIDE, fill=False, ec=COLOURS[1], lw=1.4))
    for axes in grid[::2, 0]:
        axes.set_axis_off()
    for axes, name in zip(grid[:, 1], ("kernel", "float", "adder"), strict=True):
        axes.set_ylabel(name)
    for axes in grid.ravel():
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
    return drawn


if __name__ == "__main__":
    run(main, Config)
