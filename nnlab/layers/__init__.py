"""Flax Linen modules that own parameters."""

from nnlab.layers.activations import (
    Maxout,
    PowerActivation,
    StochasticPool,
    Swish,
)
from nnlab.layers.attention import Attention
from nnlab.layers.bit import BitAttention, BitConv, BitDense, start_scales
from nnlab.layers.bitnet import BitNetConv, BitNetDense
from nnlab.layers.grouped import GroupedConv
from nnlab.layers.packed_ternary import PackedTernaryDense
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
from nnlab.layers.shift_attention import ShiftAttention
from nnlab.layers.transformer import Block, FeedForward
from nnlab.layers.transposed import ConvTranspose

__all__ = [
    "AdderConv",
    "AdderDense",
    "Attention",
    "Bidirectional",
    "BinaryConv",
    "BinaryDense",
    "BitAttention",
    "BitConv",
    "BitDense",
    "BitNetConv",
    "BitNetDense",
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
    "PackedTernaryDense",
    "PowerActivation",
    "ProductConv",
    "ProductDense",
    "Recurrent",
    "ShiftAddConv",
    "ShiftAddDense",
    "ShiftAttention",
    "ShiftPSConv",
    "ShiftPSDense",
    "SimpleCell",
    "Stacked",
    "StochasticPool",
    "Swish",
    "start_scales",
]
