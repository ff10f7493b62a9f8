"""Flax Linen modules that own parameters."""

from nnlab.layers.activations import (
    Maxout,
    PowerActivation,
    StochasticPool,
    Swish,
)
from nnlab.layers.adder import AdderConv, AdderDense
from nnlab.layers.binary import BinaryConv, BinaryDense
from nnlab.layers.convolution import Conv
from nnlab.layers.grouped import GroupedConv
from nnlab.layers.lp_adder import LpAdderConv, LpAdderDense
from nnlab.layers.product import ProductConv, ProductDense
from nnlab.layers.recurrent import (
    Cell,
    GravesLSTMCell,
    GRUCell,
    LSTMCell,
    SimpleCell,
)
from nnlab.layers.sequences import Bidirectional, Recurrent, Stacked
from nnlab.layers.shift import ShiftPSConv, ShiftPSDense
from nnlab.layers.shift_add import ShiftAddConv, ShiftAddDense
from nnlab.layers.transposed import ConvTranspose

__all__ = [
    "AdderConv",
    "AdderDense",
    "Bidirectional",
    "BinaryConv",
    "BinaryDense",
    "Cell",
    "Conv",
    "ConvTranspose",
    "GRUCell",
    "GravesLSTMCell",
    "GroupedConv",
    "LSTMCell",
    "LpAdderConv",
    "LpAdderDense",
    "Maxout",
    "PowerActivation",
    "ProductConv",
    "ProductDense",
    "Recurrent",
    "ShiftAddConv",
    "ShiftAddDense",
    "ShiftPSConv",
    "ShiftPSDense",
    "SimpleCell",
    "Stacked",
    "StochasticPool",
    "Swish",
]
