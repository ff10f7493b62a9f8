"""L1 distances, and relatives of them."""

import dataclasses
import functools

import flax.linen as nn
import jax
import optax

from nnlab.arithmetics.arithmetic import Arithmetic, of_product
from nnlab.layers.activations import PowerActivation
from nnlab.layers.adder import AdderConv, AdderDense
from nnlab.layers.lp_adder import LpAdderConv, LpAdderDense
from nnlab.layers.shift_add import ShiftAddConv, ShiftAddDense
from nnlab.ops.conjugate_adder import conjugate_adder_conv
from nnlab.ops.squared_distance import squared_distance_conv
from nnlab.ops.winograd_adder import winograd_adder_conv

# L1 distance (AdderNet, CVPR 2020).
ADDER = Arithmetic(conv=AdderConv, dense=AdderDense, activation=nn.relu)

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
