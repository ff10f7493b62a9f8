"""Convolutions by weights so simple that hardware needs no multiplier for a term, or a small one.

============  ==========================  ==================================================
function      weights                     a term, as `nnlab.costs.count` counts it
============  ==========================  ==================================================
signed_conv   -1, 0 and +1                one addition
shift_conv    0 and signed powers of two  one shift of a 32-bit word and one addition
int8_conv     multiples of a common step  one 8-bit multiplication and addition; the inputs
              that fit in 8 bits          are such multiples as well
============  ==========================  ==================================================

Value and gradients are those of `nnlab.ops.convolution.conv`: numbers travel as floats, the
platform's own convolution serves, and whoever quantises the operands answers for what they are.
The names are for the counting.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from nnlab.kernels.batch import of_images, vary_alike
from nnlab.kernels.convolution import convolve
from nnlab.kernels.window import Window
from nnlab.ops.convolution import conv_cotangents
from nnlab.ops.windows import Padding, check_operands, window_of

Product = Callable[..., jax.Array]


def _product(name: str) -> Product:
    """A convolution whose forward pass is jitted under `name`."""

    def forward(x, kernel, *, window: Window):
        return convolve(x, kernel, window)

    forward.__name__ = name
    named = jax.jit(forward, static_argnames="window")

    @functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
    def product(x, kernel, window):
        return named(x, kernel, window=window)

    def product_fwd(x, kernel, window):
        return named(x, kernel, window=window), (x, kernel)

    product.defvjp(product_fwd, conv_cotangents)

    def op(
        x: jax.Array,
        kernel: jax.Array,
        *,
        strides: int | Sequence[int] = 1,
        padding: Padding = "SAME",
        kernel_dilation: int | Sequence[int] = 1,
    ) -> jax.Array:
        """Convolution of images [batch, height, width, in] by weights [kh, kw, in, out], floating.

        The options, the result and the errors are those of `nnlab.ops.convolution.conv`; what the
        weights are meant to be, this module's table tells.
        """
        check_operands(name, x, kernel)
        x, kernel = vary_alike(x, kernel)
        window = window_of(x.shape, kernel.shape, strides, padding, kernel_dilation)
        dtype = jnp.promote_types(x.dtype, kernel.dtype)
        return of_images(lambda *a: product(*a, window), x.astype(dtype), kernel.astype(dtype))

    op.__name__ = op.__qualname__ = name
    return op


signed_conv = _product("signed_conv")
shift_conv = _product("shift_conv")
int8_conv = _product("int8_conv")
