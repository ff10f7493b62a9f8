"""Weights that are signed powers of two."""

import functools

import flax.linen as nn

from nnlab.arithmetics.arithmetic import Arithmetic, of_product
from nnlab.layers.shift import ShiftPSConv, ShiftPSDense
from nnlab.ops.shift import shift_q_conv


@functools.cache
def deep_shift_q(bits: int) -> Arithmetic:
    """Weights rounded to signed powers of two of `bits` bits (DeepShift-Q, CVPRW 2021)."""
    return of_product(functools.partial(shift_q_conv, bits=bits))


# Signed powers of two of 5 bits: rounded (DeepShift-Q), or learnt as exponents and signs (-PS).
SHIFT_Q = deep_shift_q(5)
SHIFT_PS = Arithmetic(conv=ShiftPSConv, dense=ShiftPSDense, activation=nn.relu)
