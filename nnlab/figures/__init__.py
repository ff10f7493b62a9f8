"""Pictures, tables and pages of results.

What imports matplotlib is not here: `nnlab.figures.plots`, `panels`, `heatmaps` and `report`.
"""

from nnlab.figures.distributions import Fit, Fits, fit_weights
from nnlab.figures.features import (
    Geometry,
    Plane,
    Separation,
    class_geometry,
    class_plane,
)
from nnlab.figures.tables import markdown_table, over_seeds, print_table

__all__ = [
    "Fit",
    "Fits",
    "Geometry",
    "Plane",
    "Separation",
    "class_geometry",
    "class_plane",
    "fit_weights",
    "markdown_table",
    "over_seeds",
    "print_table",
]
