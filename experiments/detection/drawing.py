"""Draw how detectors learn, and what they find beside what there is."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nnlab.figures.plots import COLOURS, STYLE
from nnlab.vision.datasets.labelled import Boxes

SHOWN = 3  # pictures
SURE = 0.3  # the least score of a box


@matplotlib.rc_context(STYLE)
def curves_and_boxes(
    curves: Mapping[str, Sequence[tuple[int, float]]],
    images: np.ndarray,
    truth: Boxes,
    found: Mapping[str, Mapping[str, np.ndarray]],
) -> Figure:
    """Draw AP50 by epochs, and the boxes of the first pictures, one colour a class.

    Args:
        curves: (epoch, AP50) of each network.
        images: float [n, height, width, 3] from 0 to 1.
        truth: what is labelled in them.
        found: of each network the arrays of `Detections`, by name, of the first images or more.
    """
    lines = 2.4 * (len(found) + 1)
    drawn = Figure(figsize=(9, 3 + lines), layout="constrained")
    parts: Any = drawn.subfigures(2, 1, height_ratios=(3, lines))
    axes: Any = parts[0].subplots()
    for colour, (name, points) in zip(itertools.cycle(COLOURS), curves.items(), strict=False):
        axes.plot(*zip(*points, strict=True), "o-", ms=3, color=colour, label=name)
    axes.set(xlabel="epochs", ylabel="AP50 of the test pictures", ylim=(0, 1))
    axes.legend(fontsize="x-small", ncols=2)
    shown = min(SHOWN, len(images))
    places: Any = parts[1].subplots(len(found) + 1, shown, squeeze=False)
    labelled = {"as labelled": truth._asdict() | {"scores": truth.mask * 1.0}}
    for line, (name, boxes) in zip(places, {**labelled, **found}.items(), strict=True):
        for number, place in enumerate(line):
            place.imshow(images[number])
            place.set(xticks=[], yticks=[], title=name if number == 0 else "")
            place.grid(False)
            sure = boxes["mask"][number] & (boxes["scores"][number] >= SURE)
            each = zip(boxes["boxes"][number][sure], boxes["classes"][number][sure], strict=True)
            for (x1, y1, x2, y2), label in each:
                colour = COLOURS[int(label) % len(COLOURS)]
                place.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=colour))
    return drawn
