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
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nnlab.layers.adder import AdderConv, AdderDense
from nnlab.layers.binary import BinaryConv, BinaryDense
from nnlab.layers.convolution import Conv
from nnlab.layers.initializers import uniform_between
from nnlab.layers.product import ProductConv, ProductDense
from nnlab.layers.shift import ShiftPSConv, ShiftPSDense
from nnlab.ops.binary_connect import binary_connect_conv, stochastic_binary_connect_conv
from nnlab.ops.bireal import bireal_conv
from nnlab.ops.dorefa import check_bits, dorefa_conv
from nnlab.ops.estimators import no_op, swish_sign
from nnlab.ops.products import Product
from nnlab.ops.shift import shift_q_conv
from nnlab.ops.ternary import ternary_conv
from nnlab.ops.xnor import xnor_conv


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


_LATENT: dict[str, Any] = dict(
    kernel_name="binary_kernel", kernel_init=nn.initializers.glorot_uniform()
)

# Signs of weights (BinaryConnect, NeurIPS 2015). Where they are drawn at random while training,
# real weights start evenly over [-1, 1], as published: near 0 the draws are noise alone.
BINARY_CONNECT = of_product(binary_connect_conv, **_LATENT)
BINARY_CONNECT_STOCHASTIC = of_product(
    stochastic_binary_connect_conv,
    stochastic=True,
    kernel_name="binary_kernel",
    kernel_init=uniform_between(-1, 1),
)

# Signs of both, with a scale a filter and a position (XNOR-Net, ECCV 2016).
XNOR = of_product(xnor_conv, activation=nn.hard_tanh, **_LATENT)

# Signs of both, with a scale a filter; nothing stands between the layers, so that shortcuts carry
# real numbers (Bi-Real Net, ECCV 2018).
BIREAL = of_product(bireal_conv, activation=no_op, **_LATENT)

# Signs of both, which learn by the slope of a swish (BNN+, 2018).
BINARY_SWISH = Arithmetic(
    conv=functools.partial(BinaryConv, input_quantizer=swish_sign, kernel_quantizer=swish_sign),
    dense=functools.partial(BinaryDense, input_quantizer=swish_sign, kernel_quantizer=swish_sign),
    activation=no_op,
)

# Weights -1, 0 and +1 with a scale a layer (Ternary Weight Networks, 2016).
TERNARY = of_product(ternary_conv)


_unit_clip = functools.partial(jnp.clip, min=0.0, max=1.0)


@functools.cache
def dorefa(weight_bits: int, activation_bits: int, gradient_bits: int = 32) -> Arithmetic:
    """Weights, activations and gradients of 1 to 8 bits, or 32 for real ones (DoReFa-Net, 2016).

    Raises:
        ValueError: of other bits.
    """
    check_bits(weight_bits, activation_bits, gradient_bits)
    bits = dict(weight_bits=weight_bits, activation_bits=activation_bits)
    op = functools.partial(dorefa_conv, **bits, gradient_bits=gradient_bits)
    return of_product(op, activation=_unit_clip, stochastic=gradient_bits < 32)
