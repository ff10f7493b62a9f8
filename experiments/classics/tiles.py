"""Draw many small square pictures side by side: filters, samples."""

import math
from typing import Any

import numpy as np


def tiles(
    axes: Any, title: str, pictures: np.ndarray, columns: int, low: float = 0, high: float = 1
):
    """Draw square pictures [n, pixels] in rows; those that do not fill a last one are left out."""
    size = math.isqrt(pictures.shape[1])
    columns = min(columns, len(pictures))
    pictures = pictures[: len(pictures) // columns * columns]
    framed = np.full((len(pictures), size + 1, size + 1), np.nan)
    framed[:, :size, :size] = pictures.reshape(-1, size, size)
    rows = framed.reshape(-1, columns, size + 1, size + 1).transpose(0, 2, 1, 3)
    axes.imshow(rows.reshape(-1, columns * (size + 1)), "gray_r", vmin=low, vmax=high)
    axes.set(xticks=[], yticks=[], title=title)
    axes.grid(False)
    axes.spines[:].set_visible(False)


def filters(axes: Any, title: str, weights: Any, count: int, columns: int) -> None:
    """Draw the weights of the first units of a layer, [pixels, units], white to black as they go
    from the most negative to the most positive.
    """
    pictures = np.asarray(weights).T[:count]
    limit = float(np.quantile(np.abs(pictures), 0.995))
    tiles(axes, title, pictures, columns, -limit, limit)
