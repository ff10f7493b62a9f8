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

from nnlab.layers.adder import AdderConv, AdderDense
from nnlab.layers.binary import BinaryConv, BinaryDense
from nnlab.layers.convolution import Conv
from nnlab.layers.product import ProductConv, ProductDense
from nnlab.ops.adder import adder_conv
from nnlab.ops.convolution import conv
from nnlab.ops.formats import FLOAT8_E4M3, FLOAT8_E5M2, Format, formatted, posit, scaled
from nnlab.ops.products import Product


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


def in_format(
    product: Product = conv,
    *,
    weights: Format | None = None,
    activations: Format | None = None,
    errors: Format | None = None,
    **options,
) -> Arithmetic:
    """The arithmetic whose numbers are each in a format of `nnlab.ops.formats`.

    Without formats, numbers are the floats that they are: the same layers for a warm-up, whose
    parameters have the same names.

    Args:
        product: of numbers in these formats.
        weights, activations, errors: of what goes into `product` and of what comes back from it.
        **options: of `of_product`, such as `kernel_name`.
    """
    op = formatted(product, kernel=weights, inputs=activations, errors=errors)
    return of_product(op, **options)


# Posits, errors in a format of wider range (Lu et al., 2019, https://arxiv.org/abs/1909.03831).
_POSITS8: Any = dict(
    weights=scaled(posit(8, 1)), activations=posit(8, 1), errors=scaled(posit(8, 2))
)
POSIT8 = in_format(**_POSITS8)
POSIT16 = in_format(
    weights=scaled(posit(16, 1)), activations=posit(16, 1), errors=scaled(posit(16, 2))
)

# Floats of 8 bits (Micikevicius et al., FP8 Formats for Deep Learning, 2022).
FLOAT8 = in_format(weights=scaled(FLOAT8_E4M3), activations=FLOAT8_E4M3, errors=scaled(FLOAT8_E5M2))

# L1 distance of posits.
ADDER_POSIT8 = in_format(
    adder_conv,
    **_POSITS8,
    kernel_name="adder_kernel",
    kernel_init=nn.initializers.normal(1.0),
)
