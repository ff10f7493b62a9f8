"""Posits and small floats."""

from typing import Any

import flax.linen as nn

from nnlab.arithmetics.arithmetic import Arithmetic, of_product
from nnlab.ops.adder import adder_conv
from nnlab.ops.convolution import conv
from nnlab.ops.formats import (
    FLOAT8_E4M3,
    FLOAT8_E5M2,
    Format,
    formatted,
    posit,
    scaled,
)
from nnlab.ops.products import Product


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
