"""Bodies of the binary convolution on packed signs, 32 in a word, and of the packing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nnlab.kernels import native_integer as native
from nnlab.kernels.adder_xla import negative_sum
from nnlab.kernels.selection import by_platform
from nnlab.kernels.window import Window


@jax.jit  # named, as below, for `nnlab.costs.count`
def pack_signs(x: jax.Array) -> jax.Array:
    """Words [..., ceil(in / 32)], uint32, of x [..., in]: bit c % 32 of word c // 32 is x_c >= 0.

    Bits past the last channel are zeros.
    """
    return by_platform(_pack_signs, x, native=native.pack_signs)


@functools.partial(jax.jit, static_argnames=("channels", "window"))
def binary_conv_packed(
    x: jax.Array, kernel: jax.Array, *, channels: int, window: Window
) -> jax.Array:
    """Number of agreeing minus number of disagreeing signs; a padded pixel adds nothing.

    Args:
        x: images of words [batch, height, width, ceil(channels / 32)], uint32.
        kernel: filters of words [kh, kw, ceil(channels / 32), out], uint32.
        channels: signs of a pixel; the bits past them are zeros in x and kernel.
        window: strides, padding and dilation.

    Returns:
        [batch, out height, out width, out], int32.
    """
    return by_platform(
        functools.partial(_binary_conv_packed, channels=channels, window=window),
        x,
        kernel,
        native=functools.partial(native.binary_conv_packed, channels=channels, window=window),
        dtypes=[jnp.dtype(jnp.uint32)],
    )


def _pack_signs(x: jax.Array) -> jax.Array:
    words = -(-x.shape[-1] // 32)
    bits = jnp.pad(x >= 0, [(0, 0)] * (x.ndim - 1) + [(0, 32 * words - x.shape[-1])])
    values = jnp.uint32(1) << jnp.arange(32, dtype=jnp.uint32)
    bits = bits.reshape(*x.shape[:-1], words, 32)
    return jnp.where(bits, values, jnp.uint32(0)).sum(axis=-1, dtype=jnp.uint32)


def _binary_conv_packed(
    x: jax.Array, kernel: jax.Array, *, channels: int, window: Window
) -> jax.Array:
    """`agreeing - disagreeing = channels - 2 disagreeing`, over the taps that lie in the image."""

    def disagreeing(x, w):
        return lax.population_count(x ^ w).astype(jnp.int32)

    # A padded pixel is a word of zeros, which disagrees with every one of the kernel.
    ones = lax.population_count(kernel).astype(jnp.int32).sum(axis=2, dtype=jnp.int32)
    rows, columns = (_inside(x, kernel, window, axis) for axis in (0, 1))
    agreeing_with_zeros = jnp.einsum("ri,cj,ijo->rco", rows, columns, channels - 2 * ones)
    ceiling = agreeing_with_zeros + 2 * ones.sum(axis=(0, 1), dtype=jnp.int32)[None, None]
    return ceiling[None] + 2 * negative_sum(disagreeing, x, kernel, window, jnp.int32)


def _inside(x: jax.Array, kernel: jax.Array, window: Window, axis: int) -> np.ndarray:
    """[positions, taps] on one axis: 1 where the tap lies in the image, else 0."""
    size, taps = x.shape[1 + axis], np.arange(kernel.shape[axis]) * window.dilation[axis]
    positions = np.arange(window.positions(x.shape[1:], kernel.shape)[axis])
    at = positions[:, None] * window.strides[axis] - window.padding[axis][0] + taps
    return ((at >= 0) & (at < size)).astype(np.int32)
