"""Networks for machines that compute in integers, and files of networks for others to read."""

from nnlab.deployment.bounds import accumulator_bounds
from nnlab.deployment.files import load_network, save_network
from nnlab.deployment.layers import network_layers
from nnlab.deployment.log_detector import LogDetector
from nnlab.deployment.models import quantize
from nnlab.deployment.network import IntegerNetwork, Node, run, run_nodes
from nnlab.deployment.reference import reference
from nnlab.deployment.saved_models import SavedModel, load_model, save_model
from nnlab.deployment.series_detector import SeriesDetector
from nnlab.deployment.stablehlo import load_program, save_program
from nnlab.deployment.vectors import write_vectors

__all__ = [
    "IntegerNetwork",
    "LogDetector",
    "Node",
    "SavedModel",
    "SeriesDetector",
    "accumulator_bounds",
    "load_model",
    "load_network",
    "load_program",
    "network_layers",
    "quantize",
    "reference",
    "run",
    "run_nodes",
    "save_model",
    "save_network",
    "save_program",
    "write_vectors",
]
