r"""The multiplying convolution, with gradients that stay fast inside compiled loops.

What networks call a convolution is a cross-correlation; the true one goes through the kernel
backwards, and equals the other with the kernel flipped. For one channel and one axis,

.. math:: \mathrm{conv}: \quad y_p = \sum_k x_{p + k} w_k                              (1)
.. math:: \mathrm{true\_conv}: \quad y_p = \sum_k x_{p - k} w_k                        (2)

up to the number of the first position, which depends on the padding. Learnt weights do not care
which it is; given ones do. With the padding "FULL", (2) is the product of two polynomials, and
commutes.

Value and gradients of (1) are those of `jax.lax.conv_general_dilated`; `nnlab.kernels.convolution`
explains why it is not simply that function. Both modes and all orders: the form is linear in x and
w, and its derivatives are convolutions again.

References:
    Goodfellow et al., Deep Learning, MIT Press 2016, eq. 9.6 for (1), eq. 9.5 for (2).
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax

from nnlab.kernels import convolution as kernels
from nnlab.ops.front import Product, over_windows
from nnlab.ops.windows import Padding


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
) -> jax.Array:
    """Cross-correlate (1); the options are those of `nnlab.ops.adder.adder_conv`.

    Args:
        x: images [batch, height, width, in], sequences [batch, time, in] or volumes
            [batch, depth, height, width, in], floating.
        kernel: filters [kh, kw, in, out], [k, in, out] or [kd, kh, kw, in, out], floating.

    Returns:
        [batch, out height, out width, out], or with the axes of `x` in place of these two, in the
        promoted dtype of the operands.

    Raises:
        ValueError: ranks, sizes or window do not fit.
        TypeError: an operand is not floating.
    """
    return over_windows(
        "conv",
        kernels.convolve,
        x,
        kernel,
        strides=strides,
        padding=padding,
        kernel_dilation=kernel_dilation,
    )


def flipped(kernel: jax.Array) -> jax.Array:
    """Flip `kernel` [*taps, in, out] along every axis of taps."""
    return lax.rev(kernel, range(kernel.ndim - 2))


def true_conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
    product: Product = conv,
) -> jax.Array:
    """Convolve (2): `product` of `x` and the flipped kernel, with the options as they are.

    Args:
        x, kernel: operands of `product`.
        product: `conv`, or another such op, as `nnlab.ops.adder.adder_conv`. That one does not
            commute, because what meets padding counts and is not 0.

    Returns:
        The result of `product`.

    Raises:
        ValueError, TypeError: those of `product`.
    """
    options: Any = dict(strides=strides, padding=padding, kernel_dilation=kernel_dilation)
    return product(x, flipped(kernel), **options)


def conv_cotangents(window, residuals, g):
    """Cotangents of (x, kernel), given that of `conv(x, kernel)`, g; all of one dtype."""
    x, kernel = residuals
    dx = kernels.convolve_input_gradient(g, x, kernel, window)
    dw = kernels.convolve_filter_gradient(g, x, kernel, window)
    return dx, dw
