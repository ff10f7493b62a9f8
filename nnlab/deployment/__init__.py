"""Networks for machines that compute in integers, and programs for others to run."""

from nnlab._moved import forward
from nnlab.deployment.bounds import accumulator_bounds
from nnlab.deployment.c_source import write_c
from nnlab.deployment.files import load_network, save_network
from nnlab.deployment.graph import IntegerNetwork, Node
from nnlab.deployment.layers import network_layers
from nnlab.deployment.network import run, run_nodes
from nnlab.deployment.onnx_files import save_onnx
from nnlab.deployment.packed import file_sizes, pack
from nnlab.deployment.reference import reference
from nnlab.deployment.stablehlo import load_program, save_program, save_text_program
from nnlab.deployment.translation import quantize
from nnlab.deployment.vectors import write_vectors

__all__ = [
    "IntegerNetwork",
    "Node",
    "accumulator_bounds",
    "file_sizes",
    "load_network",
    "load_program",
    "network_layers",
    "pack",
    "quantize",
    "reference",
    "run",
    "run_nodes",
    "save_network",
    "save_onnx",
    "save_program",
    "save_text_program",
    "write_c",
    "write_vectors",
]

__getattr__ = forward(__name__)
