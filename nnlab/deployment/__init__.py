"""Networks for machines that compute in integers."""

from nnlab.deployment.bounds import accumulator_bounds
from nnlab.deployment.models import quantize
from nnlab.deployment.network import IntegerNetwork, Node, run, run_nodes
from nnlab.deployment.reference import reference

__all__ = [
    "IntegerNetwork",
    "Node",
    "accumulator_bounds",
    "quantize",
    "reference",
    "run",
    "run_nodes",
]
