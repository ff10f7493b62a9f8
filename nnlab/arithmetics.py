"""The values a user passes as `arithmetic=`.

An arithmetic says which convolution and dense layers a model is made of and which activation
stands between them (after the normalisation). The layers bring the rest: what they do to their
inputs, how their weights start, and the name of their weights, by which `nnlab.optim` tells how
they learn. To try a variant, replace a field:

    rough = dataclasses.replace(ADDER, conv=functools.partial(AdderConv, filter_rule="sign"))
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax

from nnlab.layers.adder import AdderConv, AdderDense
from nnlab.layers.binary import BinaryConv, BinaryDense
from nnlab.layers.convolution import Conv
from nnlab.layers.product import ProductConv, ProductDense
from nnlab.layers.shift import ShiftPSConv, ShiftPSDense
from nnlab.ops.products import Product
from nnlab.ops.shift import shift_q_conv


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """Layers of one kind.

    Attributes:
        conv: called as `conv(features, kernel_size, strides=…, padding=…, use_bias=…, dtype=…)`.
        dense: called as `dense(features, use_bias=…, dtype=…)`.
        activation: what stands between normalisation and the next layer.
    """

    conv: Callable[..., nn.Module]
    dense: Callable[..., nn.Module]
    activation: Callable[[jax.Array], jax.Array]


def of_product(
    op: Product,
    *,
    activation: Callable[[jax.Array], jax.Array] = nn.relu,
    **options,
) -> Arithmetic:
    """The arithmetic whose convolution and dense layers compute `op`, all else being usual.

    Args:
        op: `op(x, kernel, strides=…, padding=…, kernel_dilation=…)`, as in `nnlab.ops.products`.
        activation: what stands between normalisation and the next layer.
        **options: of both `nnlab.layers.ProductConv` and `ProductDense`: kernel_name, kernel_init,
            stochastic.
    """
    return Arithmetic(
        conv=functools.partial(ProductConv, op=op, **options),
        dense=functools.partial(ProductDense, op=op, **options),
        activation=activation,
    )


# Float convolution (CNN), He initialisation.
FLOAT = Arithmetic(
    conv=Conv,
    dense=functools.partial(nn.Dense, use_bias=False, kernel_init=nn.initializers.he_normal()),
    activation=nn.relu,
)

# L1 distance (AdderNet, CVPR 2020).
ADDER = Arithmetic(conv=AdderConv, dense=AdderDense, activation=nn.relu)

# Signs of inputs and weights (BNN, NeurIPS 2016). The layers take the sign of what they get; the
# hard tanh between them keeps shortcuts and the float classifier informed, and leaves the sign and
# its straight-through gradient as they are.
BINARY = Arithmetic(conv=BinaryConv, dense=BinaryDense, activation=nn.hard_tanh)


@functools.cache
def deep_shift_q(bits: int) -> Arithmetic:
    """Weights rounded to signed powers of two of `bits` bits (DeepShift-Q, CVPRW 2021)."""
    return of_product(functools.partial(shift_q_conv, bits=bits))


# Signed powers of two of 5 bits: rounded (DeepShift-Q), or learnt as exponents and signs (-PS).
SHIFT_Q = deep_shift_q(5)
SHIFT_PS = Arithmetic(conv=ShiftPSConv, dense=ShiftPSDense, activation=nn.relu)
