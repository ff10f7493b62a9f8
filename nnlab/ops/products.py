"""Convolutions by weights so simple that hardware needs no multiplier for a term, or a small one.

================  ==========================  ==============================================
function          weights                     a term, as `nnlab.costs.count` counts it
================  ==========================  ==============================================
signed_conv       -1, 0 and +1                one addition
signed_int8_conv  -1, 0 and +1                one 8-bit addition; the inputs are integers of
                                              8 bits
shift_conv        0 and signed powers of two  one shift of a 32-bit word and one addition
int8_conv         multiples of a common step  one 8-bit multiplication and addition; the
                  that fit in 8 bits          inputs are such multiples as well
================  ==========================  ==============================================

Value and gradients are those of `nnlab.ops.convolution.conv`: numbers travel as floats, the
platform's own convolution computes them, and the caller, who quantises the operands, is responsible
for what they are. The names are for counting.
"""

import functools

import jax

from nnlab.kernels.convolution import convolve
from nnlab.kernels.derivatives import reverse_rule
from nnlab.kernels.window import Window
from nnlab.ops.convolution import conv_cotangents
from nnlab.ops.front import Product as Product
from nnlab.ops.front import over_windows


def _product(name: str) -> Product:
    """A convolution whose forward pass is jitted under `name`."""

    def forward(x, kernel, *, window: Window):
        return convolve(x, kernel, window)

    forward.__name__ = name
    named = jax.jit(forward, static_argnames="window")

    @functools.partial(reverse_rule, nondiff_argnums=(2,))
    def product(x, kernel, window):
        return named(x, kernel, window=window)

    def product_fwd(x, kernel, window):
        return product(x, kernel, window), (x, kernel)

    product.defvjp(product_fwd, conv_cotangents)

    def op(x: jax.Array, kernel: jax.Array, **window) -> jax.Array:
        """Convolve `x` [batch, *sizes, in] with weights [*taps, in, out], both floating.

        The options, the result and the errors are those of `nnlab.ops.convolution.conv`; the
        module's table says what the weights are meant to be.
        """
        return over_windows(name, product, x, kernel, **window)

    op.__name__ = op.__qualname__ = name
    return op


signed_conv = _product("signed_conv")
signed_int8_conv = _product("signed_int8_conv")
shift_conv = _product("shift_conv")
int8_conv = _product("int8_conv")
