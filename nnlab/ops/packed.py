r"""Products of signs packed 32 in a word, for the inference of a binary network.

A sign is stored as a bit, 1 for +1 and 0 for -1. A term of `nnlab.ops.binary.binary_conv` is +1
where two signs agree and -1 where they do not, so over C channels

.. math:: \sum_c x_c w_c = C - 2\,\mathrm{popcount}(x \oplus w)                       (1)

and y is the sum of (1) over the taps of a window that lie in the image: as there, a padded pixel
adds nothing. Bits of the last word past the channels are zeros on both sides and cancel. Words have
no gradients, and `pack_signs` passes none.

References:
    Hubara et al., Binarized Neural Networks, NeurIPS 2016, https://arxiv.org/abs/1602.02830,
    section 4 for XNOR and population count. Rastegari et al., XNOR-Net, ECCV 2016,
    https://arxiv.org/abs/1603.05279, section 3.2.
"""

import functools
import operator

import jax
import jax.numpy as jnp

from nnlab.errors import InputError
from nnlab.kernels import packed as kernels
from nnlab.kernels.batch import auto_sharded
from nnlab.ops.front import check_dense_operands, over_rows, over_windows

_SIGNS = 32  # in a word


def pack_signs(x: jax.Array, *, axis: int = -1) -> jax.Array:
    """Pack the signs of `x` along an axis: bit i % 32 of word i // 32 is 1 where x_i >= 0.

    So 0 and -0 count as +1, as in `nnlab.ops.binary.sign_ste`; a NaN, which has no sign, as -1.

    Args:
        x: numbers of any shape, floating: images [batch, height, width, in], or with `axis=-2`
            kernels [kh, kw, in, out] or [in, out].
        axis: axis of the channels.

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

    return auto_sharded(op, x)


def binary_dense_packed(x: jax.Array, kernel: jax.Array, *, channels: int) -> jax.Array:
    """Multiply vectors of signs by a matrix of signs (1).

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
    return over_rows(functools.partial(binary_conv_packed, channels=channels), x, kernel)


def binary_conv_packed(x: jax.Array, kernel: jax.Array, *, channels: int, **window) -> jax.Array:
    """Convolve signs: equation (1) over the taps of a window that lie in the image.

    Args:
        x: packed signs of images [batch, height, width, words] or sequences [batch, time, words],
            uint32.
        kernel: packed signs [kh, kw, words, out] or [k, words, out], uint32.
        channels: signs of a pixel; words = ceil(channels / 32).
        **window: strides, padding and kernel_dilation of `nnlab.ops.adder.adder_conv`.

    Returns:
        [batch, *out sizes, out], int32: agreeing minus disagreeing signs.

    Raises:
        ValueError: ranks, sizes or window do not fit.
        TypeError: an operand is not uint32.
    """
    channels = operator.index(channels)
    words = x.shape[-1] if x.ndim else 0
    if not max(_SIGNS * (words - 1), -1) < channels <= _SIGNS * words:
        raise InputError(
            f"binary_conv_packed needs ceil(channels / {_SIGNS}) words a pixel, "
            f"not {words} in x {x.shape} for {channels} channels."
        )

    def body(x, kernel, window):
        return kernels.binary_conv_packed(x, kernel, channels=channels, window=window)

    return over_windows("binary_conv_packed", body, x, kernel, **window, dtype="uint32")
