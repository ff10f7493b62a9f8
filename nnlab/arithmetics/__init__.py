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
from nnlab.arithmetics.shift import SHIFT_PS, SHIFT_Q, deep_shift_q
