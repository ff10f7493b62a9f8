r"""Binary products of signs that are packed 32 in a word, for the inference of a binary network.

A sign is stored as a bit, 1 for +1 and 0 for -1. A term of `nnlab.ops.binary.binary_conv` is +1
where two signs agree and -1 where they do not, so over C channels

.. math:: \sum_c x_c w_c = C - 2\,\mathrm{popcount}(x \oplus w)                       (1)

and y is the sum of (1) over the taps of a window that lie in the image: a padded pixel adds
nothing, as there. Bits of the last word past the channels are zeros on both sides and cancel.
Words have no gradients, and `pack_signs` passes none.

References:
    Hubara et al., Binarized Neural Networks, NeurIPS 2016, https://arxiv.org/abs/1602.02830,
    section 4 for XNOR and population count. Rastegari et al., XNOR-Net, ECCV 2016,
    https://arxiv.org/abs/1603.05279, section 3.2.
"""

import functools
import math
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from nnlab.errors import InputError
from nnlab.kernels import packed as kernels
from nnlab.kernels.batch import of_images
from nnlab.kernels.window import POINT
from nnlab.ops.windows import (
    Padding,
    check_dense_operands,
    check_operands,
    window_of,
)

_SIGNS = 32  # in a word


def pack_signs(x: jax.Array, *, axis: int = -1) -> jax.Array:
    """Signs of `x` along an axis in words: bit i % 32 of word i // 32 is 1 where x_i >= 0.

    So 0 and -0 count as +1, as in `nnlab.ops.binary.sign_ste`; a NaN, which has no sign, as -1.

    Args:
        x: numbers of any shape, floating; images [batch, height, width, in] as they are, kernels
            [kh, kw, in, out] or [in, out] with `axis=-2`.
        axis: of the channels.

    Returns:
        uint32 of the shape of `x`, with ceil(channels / 32) words along `axis`; zeros in the bits
        past the last channel.

    Raises:
        ValueError: `x` has no such axis.
        TypeError: `x` is not floating.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"pack_signs expects a floating x, not {x.dtype}.")
    if not -x.ndim <= axis < x.ndim:
        raise InputError(f"pack_signs needs an axis of x {x.shape}, not axis {axis}.")

    def op(x: jax.Array) -> jax.Array:
        words = kernels.pack_signs(jnp.moveaxis(jax.lax.stop_gradient(x), axis, -1))
        return jnp.moveaxis(words, -1, axis)

    return of_images(op, x)


def binary_dense_packed(x: jax.Array, kernel: jax.Array, *, channels: int) -> jax.Array:
    """Product of signs, equation (1).

    Args:
        x: packed signs [..., words], uint32.
        kernel: packed signs [words, out], uint32.
        channels: signs in each vector; words = ceil(channels / 32).

    Returns:
        [..., out], int32: agreeing minus disagreeing signs.

    Raises:
        ValueError: ranks or sizes do not fit.
        TypeError: an operand is not uint32.
    """
    check_dense_operands("binary_dense_packed", x, kernel, "uint32")
    channels = _checked_channels("binary_dense_packed", channels, x)

    def op(x: jax.Array, kernel: jax.Array) -> jax.Array:
        images = x.reshape(math.prod(x.shape[:-1]), 1, 1, x.shape[-1])
        y = kernels.binary_conv_packed(images, kernel[None, None], channels=channels, window=POINT)
        return y.reshape(*x.shape[:-1], kernel.shape[-1])

    return of_images(op, x, kernel)


def binary_conv_packed(
    x: jax.Array,
    kernel: jax.Array,
    *,
    channels: int,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
) -> jax.Array:
    """Convolution of signs, equation (1) over the taps of a window that lie in the image.

    Args:
        x: packed signs [batch, height, width, words], uint32.
        kernel: packed signs [kh, kw, words, out], uint32.
        channels: signs of a pixel; words = ceil(channels / 32).
        strides, padding, kernel_dilation: as of `nnlab.ops.adder.adder_conv`.

    Returns:
        [batch, out height, out width, out], int32: agreeing minus disagreeing signs.

    Raises:
        ValueError: ranks, sizes or window do not fit.
        TypeError: an operand is not uint32.
    """
    check_operands("binary_conv_packed", x, kernel, "uint32")
    channels = _checked_channels("binary_conv_packed", channels, x)
    window = window_of(x.shape, kernel.shape, strides, padding, kernel_dilation)
    op = functools.partial(kernels.binary_conv_packed, channels=channels, window=window)
    return of_images(op, x, kernel)


def _checked_channels(name: str, channels: int, x: jax.Array) -> int:
    channels = operator.index(channels)
    words = x.shape[-1]
    if not max(_SIGNS * (words - 1), -1) < channels <= _SIGNS * words:
        raise InputError(
            f"{name} needs ceil(channels / {_SIGNS}) words a pixel, "
            f"not {words} in x {x.shape} for {channels} channels."
        )
    return channels
