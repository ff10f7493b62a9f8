"""Flax Linen modules that own parameters."""

from nnlab.layers.adder import AdderConv, AdderDense
from nnlab.layers.binary import BinaryConv, BinaryDense
from nnlab.layers.convolution import Conv
from nnlab.layers.product import ProductConv, ProductDense
from nnlab.layers.shift import ShiftPSConv, ShiftPSDense

__all__ = [
    "AdderConv",
    "AdderDense",
    "BinaryConv",
    "BinaryDense",
    "Conv",
    "ProductConv",
    "ProductDense",
    "ShiftPSConv",
    "ShiftPSDense",
]
