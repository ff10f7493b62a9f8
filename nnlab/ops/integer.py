r"""Adder products of unsigned bytes, for the inference of a quantised network.

.. math:: y_{po} = -\sum_k |x_{pk} - w_{ko}|                                          (1)

as in `nnlab.ops.adder`, exact to the integer. With one scale s and one zero point z for inputs and
weights, real numbers s (x - z) and s (w - z) have the distance s |x - w|: so s y is the adder
product of the real numbers, the zero point cancels, and no multiplication stands in the sum. A
padded pixel, which is a real 0, has the value z. Integers have no gradients.

References:
    Chen et al., AdderNet: Do We Really Need Multiplications in Deep Learning?, CVPR 2020,
    https://arxiv.org/abs/1912.13200, eq. 2 for (1).
"""

import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from nnlab.errors import InputError
from nnlab.kernels import integer as kernels
from nnlab.kernels.batch import of_images
from nnlab.kernels.window import POINT
from nnlab.ops.windows import (
    Padding,
    check_dense_operands,
    check_operands,
    window_of,
)


def adder_dense_uint8(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Negative L1 distances, equation (1), of vectors to the columns of `kernel`.

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

    def op(x: jax.Array, kernel: jax.Array) -> jax.Array:
        images = x.reshape(math.prod(x.shape[:-1]), 1, 1, x.shape[-1])
        no_padding = jnp.zeros(images.shape[0], jnp.uint8)
        y = kernels.adder_conv_uint8(images, no_padding, kernel[None, None], window=POINT)
        return y.reshape(*x.shape[:-1], kernel.shape[-1])

    return of_images(op, x, kernel)


def adder_conv_uint8(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
    padding_value: ArrayLike = 0,
) -> jax.Array:
    """Negative L1 distances, equation (1), of image windows to filters.

    Args:
        x: images [batch, height, width, in], uint8.
        kernel: filters [kh, kw, in, out], uint8; kh kw in at most 8,421,504, so that no sum leaves
            int32.
        strides, padding, kernel_dilation: as of `nnlab.ops.adder.adder_conv`.
        padding_value: of a padded pixel, the zero point: from 0 to 255, or a uint8 scalar.

    Returns:
        [batch, out height, out width, out], int32.

    Raises:
        ValueError: ranks, sizes, window or padding value do not fit.
        TypeError: an operand is not uint8.
    """
    check_operands("adder_conv_uint8", x, kernel, "uint8")
    window = window_of(x.shape, kernel.shape, strides, padding, kernel_dilation)

    def op(x: jax.Array, kernel: jax.Array, value: jax.Array) -> jax.Array:
        values = jnp.broadcast_to(value, x.shape[:1])
        return kernels.adder_conv_uint8(x, values, kernel, window=window)

    return of_images(op, x, kernel, _byte("padding_value", padding_value))


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
