r"""Adder products of unsigned bytes, for the inference of a quantised network.

.. math:: y_{po} = -\sum_k |x_{pk} - w_{ko}|                                          (1)

as in `nnlab.ops.adder`, exact to the integer. With one scale s and one zero point z for inputs and
weights, real numbers s (x - z) and s (w - z) have the distance s |x - w|. So s y is the adder
product of the real numbers: the zero point cancels, and the sum needs no multiplication. A padded
pixel, which is a real 0, has the value z. Integers have no gradients.

References:
    Chen et al., AdderNet: Do We Really Need Multiplications in Deep Learning?, CVPR 2020,
    https://arxiv.org/abs/1912.13200, eq. 2 for (1).
"""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from nnlab.errors import InputError
from nnlab.kernels import integer as kernels
from nnlab.ops.front import check_dense_operands, over_rows, over_windows
from nnlab.ops.windows import Padding


def adder_dense_uint8(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Compute negative L1 distances (1) of vectors to the columns of `kernel`.

    Args:
        x: inputs [..., in], uint8.
        kernel: weights [in, out], uint8; `in` at most 8,421,504, so that no sum leaves int32.

    Returns:
        [..., out], int32.

    Raises:
        ValueError: ranks or sizes do not fit.
        TypeError: an operand is not uint8.
    """
    check_dense_operands("adder_dense_uint8", x, kernel, "uint8")
    return over_rows(adder_conv_uint8, x, kernel)


def adder_conv_uint8(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
    padding_value: ArrayLike = 0,
) -> jax.Array:
    """Compute negative L1 distances (1) of windows of images or sequences to filters.

    Args:
        x: images [batch, height, width, in] or sequences [batch, time, in], uint8.
        kernel: filters [kh, kw, in, out] or [k, in, out], uint8; at most 8,421,504 terms in a sum,
            so that none leaves int32.
        strides, padding, kernel_dilation: see `nnlab.ops.adder.adder_conv`.
        padding_value: value of a padded pixel, the zero point: from 0 to 255, or a uint8 scalar.

    Returns:
        [batch, *out sizes, out], int32.

    Raises:
        ValueError: ranks, sizes, window or padding value do not fit.
        TypeError: an operand is not uint8.
    """
    return over_windows(
        "adder_conv_uint8",
        _adder_conv,
        x,
        kernel,
        _byte("padding_value", padding_value),
        strides=strides,
        padding=padding,
        kernel_dilation=kernel_dilation,
        dtype="uint8",
    )


def _adder_conv(x, kernel, padding_value, window) -> jax.Array:
    values = jnp.broadcast_to(padding_value, x.shape[:1])
    return kernels.adder_conv_uint8(x, values, kernel, window=window)


def _byte(name: str, value: Any) -> jax.Array:
    if getattr(value, "dtype", None) == jnp.uint8 and jnp.ndim(value) == 0:
        return jnp.asarray(value)
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number <= 255:
        raise InputError(f"{name} must be an integer from 0 to 255 or a uint8 scalar, not {value}.")
    return jnp.uint8(number)
