"""Flax Linen modules that own parameters."""

from nnlab.layers.adder import AdderConv, AdderDense
from nnlab.layers.binary import BinaryConv, BinaryDense
from nnlab.layers.convolution import Conv
from nnlab.layers.grouped import GroupedConv
from nnlab.layers.lp_adder import LpAdderConv, LpAdderDense
from nnlab.layers.maxout import Maxout
from nnlab.layers.pooling import StochasticPool
from nnlab.layers.power import PowerActivation
from nnlab.layers.product import ProductConv, ProductDense
from nnlab.layers.shift import ShiftPSConv, ShiftPSDense
from nnlab.layers.shift_add import ShiftAddConv, ShiftAddDense
from nnlab.layers.swish import Swish
from nnlab.layers.transposed import ConvTranspose

__all__ = [
    "AdderConv",
    "AdderDense",
    "BinaryConv",
    "BinaryDense",
    "Conv",
    "ConvTranspose",
    "GroupedConv",
    "LpAdderConv",
    "LpAdderDense",
    "Maxout",
    "PowerActivation",
    "ProductConv",
    "ProductDense",
    "ShiftAddConv",
    "ShiftAddDense",
    "ShiftPSConv",
    "ShiftPSDense",
    "StochasticPool",
    "Swish",
]
