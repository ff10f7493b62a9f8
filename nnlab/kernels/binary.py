"""Body of the binary convolution: ±1 inputs against ±1 filters.

The signs travel as floats, so the platform's own convolution serves. It is jitted under its own
name, by which `nnlab.costs.count` knows that a term costs one XNOR and one count, not a product.
"""

import functools

import jax

from nnlab.kernels.convolution import convolve
from nnlab.kernels.window import Window


@functools.partial(jax.jit, static_argnames="window")
def binary_conv(x: jax.Array, kernel: jax.Array, *, window: Window) -> jax.Array:
    """Number of agreeing minus number of disagreeing signs; a padded pixel is 0 and adds nothing.

    Args:
        x: signs [batch, height, width, in], floating.
        kernel: signs [kh, kw, in, out], dtype of `x`.
        window: strides, padding and dilation.

    Returns:
        [batch, out height, out width, out], dtype of `x`.
    """
    return convolve(x, kernel, window)
