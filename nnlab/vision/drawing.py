"""Draw what a network found into a picture: coloured masks, and boxes with their names."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from nnlab.errors import needs
from nnlab.figures.colours import COLOURS
from nnlab.vision.datasets.masks import IGNORE

with needs("images"):
    from PIL import Image, ImageColor, ImageDraw, ImageFont

_OPACITY = 0.5


def colour_of(number: int) -> tuple[int, int, int]:
    """Return the colour of a class, red, green and blue up to 255; they repeat after ten."""
    return ImageColor.getrgb(COLOURS[number % len(COLOURS)])[:3]


def draw_mask(picture: np.ndarray, mask: np.ndarray, *, background: int | None = 0) -> np.ndarray:
    """Return a picture with the colour of each pixel's class laid over it.

    Args:
        picture: uint8 [height, width, 3].
        mask: numbers of classes, integers [height, width].
        background: the class that keeps its look, as pixels of 255 do; or None.
    """
    drawn = picture.astype(np.float64)
    for number in np.setdiff1d(mask, [IGNORE, -1 if background is None else background]):
        seen = mask == number
        drawn[seen] += _OPACITY * (np.array(colour_of(int(number))) - drawn[seen])
    return np.rint(drawn).astype(np.uint8)


def draw_boxes(
    picture: np.ndarray, boxes: ArrayLike, classes: Sequence[int], names: Sequence[str]
) -> np.ndarray:
    """Return a picture with boxes in it, each in the colour of its class and with its name.

    Args:
        picture: uint8 [height, width, 3].
        boxes: (x1, y1, x2, y2) in pixels, [n, 4].
        classes: numbers of classes, n of them.
        names: what is written at each, n of them.
    """
    drawn = Image.fromarray(picture)
    pen = ImageDraw.Draw(drawn)
    height, width = picture.shape[:2]
    thick = max(1, round(min(height, width) / 200))
    font = ImageFont.load_default(max(10, min(height, width) / 30))
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    for box, number, name in zip(corners, classes, names, strict=True):
        x1, y1, x2, y2 = np.clip(box, 0, [width - 1, height - 1] * 2).tolist()
        colour = colour_of(int(number))
        pen.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=thick)
        left, top, right, bottom = pen.textbbox((x1 + thick, y1 + thick), name, font)
        pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=colour)
        pen.text((x1 + thick, y1 + thick), name, (255, 255, 255), font)
    return np.asarray(drawn)
