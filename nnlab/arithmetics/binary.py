"""Signs, and numbers of a few bits, in place of real weights and inputs."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from nnlab.arithmetics.arithmetic import Arithmetic, of_product
from nnlab.layers.binary import BinaryConv, BinaryDense
from nnlab.layers.initializers import uniform_between
from nnlab.ops.binary_connect import binary_connect_conv, stochastic_binary_connect_conv
from nnlab.ops.bireal import bireal_conv
from nnlab.ops.dorefa import check_bits, dorefa_conv
from nnlab.ops.estimators import no_op, swish_sign
from nnlab.ops.ternary import ternary_conv
from nnlab.ops.xnor import xnor_conv

# Signs of inputs and weights (BNN, NeurIPS 2016). The layers take the sign of what they get; the
# hard tanh between them keeps shortcuts and the float classifier informed, and leaves the sign and
# its straight-through gradient as they are.
BINARY = Arithmetic(conv=BinaryConv, dense=BinaryDense, activation=nn.hard_tanh)

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
