"""Body of the 8-bit adder convolution: L1 distances of bytes, exact to the integer.

A processor with an instruction for sums of absolute differences of bytes (`psadbw`) takes eight
terms a lane and instruction; XLA has none such, and widens every byte to 32 bits.
"""

import functools

import jax
import jax.numpy as jnp

from nnlab.kernels import native_integer as native
from nnlab.kernels.adder_xla import negative_sum
from nnlab.kernels.selection import by_platform
from nnlab.kernels.window import Window


@functools.partial(jax.jit, static_argnames="window")  # named for `nnlab.costs.count`
def adder_conv_uint8(
    x: jax.Array, padding_value: jax.Array, kernel: jax.Array, *, window: Window
) -> jax.Array:
    """Negative L1 distance of every window of `x` to every filter.

    Args:
        x: images [batch, height, width, in], uint8.
        padding_value: the value of an image's padded pixels [batch], uint8.
        kernel: filters [kh, kw, in, out], uint8.
        window: strides, padding and dilation.

    Returns:
        [batch, out height, out width, out], int32.
    """
    return by_platform(
        functools.partial(_xla, window=window),
        x,
        padding_value,
        kernel,
        native=functools.partial(native.adder_conv_uint8, window=window),
        dtypes=[jnp.dtype(jnp.uint8)],
    )


def _xla(x: jax.Array, padding_value: jax.Array, kernel: jax.Array, *, window: Window) -> jax.Array:
    def distance(x, w):
        return jnp.abs(x.astype(jnp.int32) - w.astype(jnp.int32))

    pads = ((0, 0), *window.padding, (0, 0))
    inside = jnp.pad(jnp.ones((1, *x.shape[1:3], 1), bool), pads)
    x = jnp.where(inside, jnp.pad(x, pads), padding_value[:, None, None, None])
    return negative_sum(distance, x, kernel, window._replace(padding=((0, 0), (0, 0))), jnp.int32)
