"""What a network costs: operations, energy and bytes at rest, layer by layer."""

from nnlab.costs.counting import Counts, count
from nnlab.costs.energy import energy
from nnlab.costs.sparsity import (
    Mass,
    SparseLayer,
    expected_mass_removed,
    mass_removed,
    sparse_counts,
)
from nnlab.costs.storage import stored_bytes
from nnlab.costs.summary import inference_costs

__all__ = [
    "Counts",
    "Mass",
    "SparseLayer",
    "count",
    "energy",
    "expected_mass_removed",
    "inference_costs",
    "mass_removed",
    "sparse_counts",
    "stored_bytes",
]
