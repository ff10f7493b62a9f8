"""What an arithmetic is, and the one of float convolutions."""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax

from nnlab.layers.convolution import Conv
from nnlab.layers.product import ProductConv, ProductDense
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
