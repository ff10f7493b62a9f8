"""Flax Linen modules that own parameters."""

from nnlab.layers.activations import (
    Maxout,
    PowerActivation,
    StochasticPool,
    Swish,
)
from nnlab.layers.attention import Attention
from nnlab.layers.grouped import GroupedConv
from nnlab.layers.product import (
    AdderConv,
    AdderDense,
    BinaryConv,
    BinaryDense,
    Conv,
    LpAdderConv,
    LpAdderDense,
    ProductConv,
    ProductDense,
    ShiftAddConv,
    ShiftAddDense,
    ShiftPSConv,
    ShiftPSDense,
)
from nnlab.layers.recurrent import (
    Cell,
    GravesLSTMCell,
    GRUCell,
    LSTMCell,
    SimpleCell,
)
from nnlab.layers.sequences import Bidirectional, Recurrent, Stacked
from nnlab.layers.transformer import Block, FeedForward
from nnlab.layers.transposed import ConvTranspose

__all__ = [
    "AdderConv",
    "AdderDense",
    "Attention",
    "Bidirectional",
    "BinaryConv",
    "BinaryDense",
    "Block",
    "Cell",
    "Conv",
    "ConvTranspose",
    "FeedForward",
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
