"""What a trained network costs and what it looks like.

Pictures and the HTML report import matplotlib; they are `nnlab.analysis.plots` and
`nnlab.analysis.report`.
"""

from nnlab.analysis.costs import inference_costs
from nnlab.analysis.counting import Counts, count
from nnlab.analysis.detection import Found, found, grouping_accuracy
from nnlab.analysis.distributions import Fit, Fits, fit_weights
from nnlab.analysis.energy import energy
from nnlab.analysis.features import Geometry, Plane, Separation, class_geometry, class_plane
from nnlab.analysis.sparsity import (
    Mass,
    SparseLayer,
    expected_mass_removed,
    mass_removed,
    sparse_counts,
)
from nnlab.analysis.storage import stored_bytes
from nnlab.analysis.tables import markdown_table, print_table

__all__ = [
    "Counts",
    "Fit",
    "Fits",
    "Found",
    "Geometry",
    "Mass",
    "Plane",
    "Separation",
    "SparseLayer",
    "class_geometry",
    "class_plane",
    "count",
    "energy",
    "expected_mass_removed",
    "fit_weights",
    "found",
    "grouping_accuracy",
    "inference_costs",
    "markdown_table",
    "mass_removed",
    "print_table",
    "sparse_counts",
    "stored_bytes",
]
