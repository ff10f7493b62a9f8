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
import optax

from nnlab.layers.adder import AdderConv, AdderDense
from nnlab.layers.binary import BinaryConv, BinaryDense
from nnlab.layers.convolution import Conv
from nnlab.layers.lp_adder import LpAdderConv, LpAdderDense
from nnlab.layers.power import PowerActivation
from nnlab.layers.product import ProductConv, ProductDense
from nnlab.layers.shift_add import ShiftAddConv, ShiftAddDense
from nnlab.ops.conjugate_adder import conjugate_adder_conv
from nnlab.ops.products import Product
from nnlab.ops.squared_distance import squared_distance_conv
from nnlab.ops.winograd_adder import winograd_adder_conv


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

# The adder's relatives. Their weights start and learn as the adder's.
_as_adder = functools.partial(
    of_product, kernel_name="adder_kernel", kernel_init=nn.initializers.normal(1.0)
)

# Minima of magnitudes under the sign of the product (CAddNet, CVPR Workshops 2022).
CONJUGATE_ADDER = _as_adder(conjugate_adder_conv)

# L2 distance, squared: the Lp adder's beginning. It multiplies.
SQUARED_DISTANCE = _as_adder(squared_distance_conv)

# Distances of transformed tiles where windows are 3×3 at stride 1 (ICML 2021), else L1 distance.
WINOGRAD_ADDER = _as_adder(winograd_adder_conv)


def lp_adder(p_schedule: optax.Schedule) -> Arithmetic:
    """Distances to the p, by a schedule of training steps (Universal AdderNet, 2021).

    Published: `optax.linear_schedule(2.0, 1.0, steps)` or another way from 2 down to 1. The
    arithmetic of `optax.constant_schedule(1.0)` takes the same parameters when p has come to 1, and
    its program has no powers in it.
    """
    return Arithmetic(
        conv=functools.partial(LpAdderConv, p_schedule=p_schedule),
        dense=functools.partial(LpAdderDense, p_schedule=p_schedule),
        activation=nn.relu,
    )


# Powers of two, then L1 distance, in the place of each layer (ShiftAddNet, NeurIPS 2020).
SHIFT_ADD = Arithmetic(conv=ShiftAddConv, dense=ShiftAddDense, activation=nn.relu)


def _relu_and_power(x: jax.Array) -> jax.Array:
    return PowerActivation()(nn.relu(x))


# L1 distance and a learnt power behind the activation (AdderSR, CVPR 2021). Its shortcut around
# every convolution is the model's: `CifarResNet(…, shortcuts="convolution")`.
ADDER_SR = dataclasses.replace(ADDER, activation=_relu_and_power)
