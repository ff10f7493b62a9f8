"""The values a user passes as `arithmetic=`.

An arithmetic says which convolution and dense layers a model is made of and which activation
stands between them (after the normalisation). The layers bring the rest: what they do to their
inputs, how their weights start, and the name of their weights, by which `nnlab.optim` tells how
they learn. To try a variant, replace a field:

    rough = dataclasses.replace(ADDER, conv=functools.partial(AdderConv, filter_rule="sign"))
"""

from nnlab.arithmetics.adder import (
    ADDER,
    ADDER_SR,
    CONJUGATE_ADDER,
    SHIFT_ADD,
    SQUARED_DISTANCE,
    WINOGRAD_ADDER,
    lp_adder,
)
from nnlab.arithmetics.arithmetic import FLOAT, Arithmetic, of_product
from nnlab.arithmetics.binary import (
    BINARY,
    BINARY_CONNECT,
    BINARY_CONNECT_STOCHASTIC,
    BINARY_SWISH,
    BIREAL,
    TERNARY,
    XNOR,
    dorefa,
)
from nnlab.arithmetics.formats import (
    ADDER_POSIT8,
    FLOAT8,
    POSIT8,
    POSIT16,
    in_format,
)
from nnlab.arithmetics.shift import SHIFT_PS, SHIFT_Q, deep_shift_q

# A name each, for command lines and tables.
NAMED = {
    "float": FLOAT,
    "adder": ADDER,
    "conjugate_adder": CONJUGATE_ADDER,
    "squared_distance": SQUARED_DISTANCE,
    "winograd_adder": WINOGRAD_ADDER,
    "adder_sr": ADDER_SR,
    "shift_add": SHIFT_ADD,
    "shift_q": SHIFT_Q,
    "shift_ps": SHIFT_PS,
    "binary": BINARY,
    "binary_connect": BINARY_CONNECT,
    "binary_connect_stochastic": BINARY_CONNECT_STOCHASTIC,
    "xnor": XNOR,
    "bireal": BIREAL,
    "binary_swish": BINARY_SWISH,
    "ternary": TERNARY,
    "dorefa_1_2": dorefa(1, 2),
    "dorefa_4_4_8": dorefa(4, 4, 8),
    "posit8": POSIT8,
    "posit16": POSIT16,
    "float8": FLOAT8,
    "adder_posit8": ADDER_POSIT8,
}

__all__ = [
    "ADDER",
    "ADDER_POSIT8",
    "ADDER_SR",
    "BINARY",
    "BINARY_CONNECT",
    "BINARY_CONNECT_STOCHASTIC",
    "BINARY_SWISH",
    "BIREAL",
    "CONJUGATE_ADDER",
    "FLOAT",
    "FLOAT8",
    "NAMED",
    "POSIT8",
    "POSIT16",
    "SHIFT_ADD",
    "SHIFT_PS",
    "SHIFT_Q",
    "SQUARED_DISTANCE",
    "TERNARY",
    "WINOGRAD_ADDER",
    "XNOR",
    "Arithmetic",
    "deep_shift_q",
    "dorefa",
    "in_format",
    "lp_adder",
    "of_product",
]
