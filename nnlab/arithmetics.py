"""The values a user passes as `arithmetic=`: what a network computes in.

An arithmetic says all that a model or a script must know of it: the convolution and dense layers
that a model is made of, the activation that follows the normalisation, whether it needs that
normalisation, where a residual network puts its shortcuts, and how a transformer attends. The
layers bring the rest: what they do to their inputs, how their weights start, and the name of their
weights, by which `nnlab.optim` tells how they learn.

To try a variant, replace a field; to define your own arithmetic, wrap its op:

    rough = dataclasses.replace(ADDER, conv=functools.partial(AdderConv, filter_rule="sign"))
    mine = of_product(my_op, name="mine")

or say what a term of its sums is, for which the kit has fast loops:

    near = of_term(lambda x, w: -jnp.minimum(jnp.abs(x - w), 1), name="near")

Each arithmetic below works in dense layers and in convolutions of sequences, images and volumes.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from nnlab.layers import (
    AdderConv,
    AdderDense,
    BinaryConv,
    BinaryDense,
    BitAttention,
    BitConv,
    BitDense,
    BitNetConv,
    BitNetDense,
    Conv,
    LpAdderConv,
    LpAdderDense,
    PowerActivation,
    ShiftAddConv,
    ShiftAddDense,
    ShiftAttention,
    ShiftPSConv,
    ShiftPSDense,
)
from nnlab.layers.arithmetic import Arithmetic as Arithmetic
from nnlab.layers.arithmetic import of_product as of_product
from nnlab.layers.arithmetic import of_term as of_term
from nnlab.layers.initializers import uniform_between
from nnlab.ops.adder import adder_conv
from nnlab.ops.adder_attention import adder_attention
from nnlab.ops.bibert import bibert_attention, bibert_conv
from nnlab.ops.binary_connect import binary_connect_conv, stochastic_binary_connect_conv
from nnlab.ops.bireal import bireal_conv
from nnlab.ops.conjugate_adder import conjugate_adder_conv
from nnlab.ops.convolution import conv
from nnlab.ops.dorefa import check_bits, dorefa_conv
from nnlab.ops.estimators import no_op, swish_sign
from nnlab.ops.formats import FLOAT8_E4M3, FLOAT8_E5M2, Format, formatted, posit, scaled
from nnlab.ops.l_mul import Form, check_l_mul, l_mul_attention, l_mul_conv
from nnlab.ops.products import Product
from nnlab.ops.scaled import centred_signs_by_layer
from nnlab.ops.shift import shift_q_conv
from nnlab.ops.squared_distance import squared_distance_conv
from nnlab.ops.ternary import ternary_conv
from nnlab.ops.winograd_adder import winograd_adder_conv
from nnlab.ops.xnor import xnor_conv

__path__: list[str] = []  # lets old modules of this name be found, see `nnlab._moved`


FLOAT = Arithmetic(
    conv=Conv,
    dense=functools.partial(nn.Dense, use_bias=False, kernel_init=nn.initializers.he_normal()),
    activation=nn.relu,
    name="float",
    about="x w, He initialisation",
    needs_norm=False,
)

ADDER = Arithmetic(
    AdderConv,
    AdderDense,
    nn.relu,
    "adder",
    "-|x - w| (AdderNet, CVPR 2020)",
    attention=adder_attention,
)

# The adder's relatives. Their weights start and learn as the adder's.
_as_adder = functools.partial(
    of_product, kernel_name="adder_kernel", kernel_init=nn.initializers.normal(1.0)
)
CONJUGATE_ADDER = _as_adder(
    conjugate_adder_conv,
    name="conjugate_adder",
    about="minima of magnitudes under the sign of the product (CAddNet, CVPR Workshops 2022)",
)
SQUARED_DISTANCE = _as_adder(
    squared_distance_conv,
    name="squared_distance",
    about="-(x - w)^2, where the Lp adder begins; it multiplies",
)
WINOGRAD_ADDER = _as_adder(
    winograd_adder_conv,
    name="winograd_adder",
    about="distances of transformed tiles for windows of 3 at stride 1, else the adder (ICML 2021)",
)


def _relu_and_power(x: jax.Array) -> jax.Array:
    return PowerActivation()(nn.relu(x))


ADDER_SR = dataclasses.replace(
    ADDER,
    activation=_relu_and_power,
    name="adder_sr",
    about="-|x - w|, and a learnt power after the activation (AdderSR, CVPR 2021)",
    shortcuts="convolution",
)


def lp_adder(p_schedule: optax.Schedule) -> Arithmetic:
    """Distances to the p, by a schedule of training steps (Universal AdderNet, 2021).

    Published is `optax.linear_schedule(2.0, 1.0, steps)` or another way from 2 down to 1. With
    `optax.constant_schedule(1.0)` the arithmetic takes the same parameters once p has come to 1,
    and its program has no powers in it.
    """
    return Arithmetic(
        conv=functools.partial(LpAdderConv, p_schedule=p_schedule),
        dense=functools.partial(LpAdderDense, p_schedule=p_schedule),
        activation=nn.relu,
        name="lp_adder",
        about="-|x - w|^p, p from 2 down to 1 (Universal AdderNet, 2021)",
    )


SHIFT_ADD = Arithmetic(
    ShiftAddConv,
    ShiftAddDense,
    nn.relu,
    "shift_add",
    "powers of two, then L1 distance, in place of each layer (ShiftAddNet, NeurIPS 2020)",
)


@functools.cache
def deep_shift_q(bits: int) -> Arithmetic:
    """Weights rounded to signed powers of two of `bits` bits (DeepShift-Q, CVPR Workshops 2021)."""
    return of_product(
        functools.partial(shift_q_conv, bits=bits),
        name="shift_q" if bits == 5 else f"shift_q_{bits}",
        about=f"x times a power of two, rounded to {bits} bits (DeepShift-Q, CVPR Workshops 2021)",
    )


SHIFT_Q = deep_shift_q(5)
SHIFT_PS = Arithmetic(
    ShiftPSConv,
    ShiftPSDense,
    nn.relu,
    "shift_ps",
    "x times a power of two whose exponent and sign are learnt (DeepShift-PS)",
)
SHIFT_ADD_VIT = dataclasses.replace(
    SHIFT_PS,
    name="shift_add_vit",
    about="x times a learnt power of two, linear attention of bits (ShiftAddViT, NeurIPS 2023)",
    attention=ShiftAttention,
)

# The layers take the sign of what they get; the hard tanh between them keeps shortcuts and the
# float classifier informed, and leaves the sign and its straight-through gradient as they are.
BINARY = Arithmetic(
    BinaryConv, BinaryDense, nn.hard_tanh, "binary", "sgn(x) sgn(w) (BNN, NeurIPS 2016)"
)

_LATENT: dict[str, Any] = dict(
    kernel_name="binary_kernel", kernel_init=nn.initializers.glorot_uniform()
)
BINARY_CONNECT = of_product(
    binary_connect_conv,
    name="binary_connect",
    about="x sgn(w) (BinaryConnect, NeurIPS 2015)",
    **_LATENT,
)
# Real weights start uniform over [-1, 1], as published: near 0 the draws are noise alone.
BINARY_CONNECT_STOCHASTIC = of_product(
    stochastic_binary_connect_conv,
    name="binary_connect_stochastic",
    about="x times a random sign in training, x w in evaluation (BinaryConnect)",
    stochastic=True,
    kernel_name="binary_kernel",
    kernel_init=uniform_between(-1, 1),
)
XNOR = of_product(
    xnor_conv,
    activation=nn.hard_tanh,
    name="xnor",
    about="sgn(x) sgn(w), a scale for each filter and position (XNOR-Net, ECCV 2016)",
    **_LATENT,
)
# Nothing stands between the layers, so that shortcuts carry real numbers.
BIREAL = of_product(
    bireal_conv,
    activation=no_op,
    name="bireal",
    about="sgn(x) sgn(w), a scale for each filter (Bi-Real Net, ECCV 2018)",
    shortcuts="convolution",
    **_LATENT,
)
_swish_signs: dict[str, Any] = dict(input_quantizer=swish_sign, kernel_quantizer=swish_sign)
BINARY_SWISH = Arithmetic(
    functools.partial(BinaryConv, **_swish_signs),
    functools.partial(BinaryDense, **_swish_signs),
    no_op,
    "binary_swish",
    "sgn(x) sgn(w), which learn by the slope of a swish (BNN+, 2018)",
)
TERNARY = of_product(
    ternary_conv,
    name="ternary",
    about="x times -1, 0 or 1, a scale for each layer (Ternary Weight Networks, 2016)",
)


@functools.cache
def bitnet(*, norm: bool = True, norm_epsilon: float = 1e-6) -> Arithmetic:
    """Inputs of 8 bits times -1, 0 or 1 (BitNet b1.58, 2024), with norms inside or without them.

    Args:
        norm: whether each layer normalises its inputs, as in the published training tips; without,
            the model places norms itself, as the released BitNet b1.58 2B4T does.
        norm_epsilon: added to the mean square of these norms.
    """
    options: Any = {"norm": norm, "norm_epsilon": norm_epsilon}
    return dataclasses.replace(
        BITNET,
        conv=functools.partial(BitNetConv, **options),
        dense=functools.partial(BitNetDense, **options),
        needs_norm=not norm,
    )


BITNET = Arithmetic(
    BitNetConv,
    BitNetDense,
    nn.relu,
    "bitnet",
    "x of 8 bits times -1, 0 or 1, a scale for each layer and token (BitNet b1.58, 2024)",
    needs_norm=False,
)
BITNET_B1 = dataclasses.replace(
    BITNET,
    conv=functools.partial(BitNetConv, quantizer=centred_signs_by_layer),
    dense=functools.partial(BitNetDense, quantizer=centred_signs_by_layer),
    name="bitnet_b1",
    about="x of 8 bits times sgn(w), a scale for each layer and token (BitNet, 2023)",
)
BIT = Arithmetic(
    BitConv,
    BitDense,
    no_op,
    "bit",
    "sgn(x) sgn(w), with a learnt scale and offset of x (BiT, NeurIPS 2022)",
    attention=BitAttention,
    dense_after_relu=functools.partial(BitDense, signed=False),
)
BIBERT = of_product(
    bibert_conv,
    activation=no_op,
    name="bibert",
    about="sgn(x) sgn(w), a scale for each filter, attention without softmax (BiBERT, ICLR 2022)",
    attention=bibert_attention,
)


@functools.cache
def l_mul(form: Form = "add", mantissa_bits: int = 23) -> Arithmetic:
    """Products that are sums of the bits of floats (L-Mul, 2024), in dense layers and attention.

    Args:
        form, mantissa_bits: see `nnlab.ops.l_mul`.

    Raises:
        ValueError: of either.
    """
    check_l_mul(form, mantissa_bits)
    options: Any = {"form": form, "mantissa_bits": mantissa_bits}
    return of_product(
        functools.partial(l_mul_conv, **options),
        name="l_mul",
        about="x w by the sum of exponents and fractions (L-Mul, 2024)",
        needs_norm=False,
        attention=functools.partial(l_mul_attention, **options),
    )


L_MUL = l_mul()

_unit_clip = functools.partial(jnp.clip, min=0.0, max=1.0)


@functools.cache
def dorefa(weight_bits: int, activation_bits: int, gradient_bits: int = 32) -> Arithmetic:
    """Weights, activations and gradients of 1 to 8 bits, or 32 for real ones (DoReFa-Net, 2016).

    Raises:
        ValueError: for other numbers of bits.
    """
    check_bits(weight_bits, activation_bits, gradient_bits)
    bits = weight_bits, activation_bits, *([gradient_bits] if gradient_bits < 32 else [])
    return of_product(
        functools.partial(
            dorefa_conv,
            weight_bits=weight_bits,
            activation_bits=activation_bits,
            gradient_bits=gradient_bits,
        ),
        activation=_unit_clip,
        name="_".join(map(str, ("dorefa", *bits))),
        about="numbers of few bits: weights, activations and gradients (DoReFa-Net, 2016)",
        stochastic=gradient_bits < 32,
    )


def in_format(
    product: Product = conv,
    *,
    weights: Format | None = None,
    activations: Format | None = None,
    errors: Format | None = None,
    **options,
) -> Arithmetic:
    """Make the arithmetic of `product` whose numbers are each in a format of `nnlab.ops.formats`.

    Without formats, numbers are the floats that they are: the same layers for a warm-up, whose
    parameters have the same names.

    Args:
        product: product of numbers in these formats.
        weights, activations, errors: formats of what goes into `product` and comes back from it.
        **options: options of `of_product`, such as `kernel_name`.
    """
    op = formatted(product, kernel=weights, inputs=activations, errors=errors)
    return of_product(op, **options)


# Errors are in a format of wider range than weights and activations.
_POSITS8: Any = dict(
    weights=scaled(posit(8, 1)), activations=posit(8, 1), errors=scaled(posit(8, 2))
)
POSIT8 = in_format(
    **_POSITS8,
    name="posit8",
    about="x w of 8-bit posits (Lu et al., 2019, https://arxiv.org/abs/1909.03831)",
)
POSIT16 = in_format(
    weights=scaled(posit(16, 1)),
    activations=posit(16, 1),
    errors=scaled(posit(16, 2)),
    name="posit16",
    about="x w of 16-bit posits",
)
FLOAT8 = in_format(
    weights=scaled(FLOAT8_E4M3),
    activations=FLOAT8_E4M3,
    errors=scaled(FLOAT8_E5M2),
    name="float8",
    about="x w of 8-bit floats (Micikevicius et al., FP8 Formats for Deep Learning, 2022)",
)
ADDER_POSIT8 = in_format(
    adder_conv,
    **_POSITS8,
    name="adder_posit8",
    about="-|x - w| of 8-bit posits",
    kernel_name="adder_kernel",
    kernel_init=nn.initializers.normal(1.0),
)

# Every arithmetic without arguments by its name, and DoReFa-Net at two widths.
NAMED = {
    arithmetic.name: arithmetic
    for arithmetic in (
        FLOAT,
        ADDER,
        CONJUGATE_ADDER,
        SQUARED_DISTANCE,
        WINOGRAD_ADDER,
        ADDER_SR,
        SHIFT_ADD,
        SHIFT_Q,
        SHIFT_PS,
        BINARY,
        BINARY_CONNECT,
        BINARY_CONNECT_STOCHASTIC,
        XNOR,
        BIREAL,
        BINARY_SWISH,
        TERNARY,
        dorefa(1, 2),
        dorefa(4, 4, 8),
        POSIT8,
        POSIT16,
        FLOAT8,
        ADDER_POSIT8,
        SHIFT_ADD_VIT,
        BITNET,
        BITNET_B1,
        BIT,
        BIBERT,
        L_MUL,
    )
}
