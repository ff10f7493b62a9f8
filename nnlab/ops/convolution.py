r"""The multiplying convolution, with gradients that stay fast inside compiled loops.

What networks call a convolution is a cross-correlation; the true one goes through the kernel
backwards, and equals the other with a kernel turned around. Of one channel, along one axis,

.. math:: \mathrm{conv}: \quad y_p = \sum_k x_{p + k} w_k                              (1)
.. math:: \mathrm{true\_conv}: \quad y_p = \sum_k x_{p - k} w_k                        (2)

but for the number of the first position, which the padding tells. Learnt weights do not care; given
ones do. With the padding "FULL", (2) is the product of two polynomials, and commutes.

Value and gradients of (1) are those of `jax.lax.conv_general_dilated`; why it is not simply that
one is told in `nnlab.kernels.convolution`. Reverse mode only.

References:
    Goodfellow et al., Deep Learning, MIT Press 2016, eq. 9.6 for (1), eq. 9.5 for (2).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.kernels import convolution as kernels
from nnlab.kernels.batch import of_images, vary_alike
from nnlab.ops.dimensions import in_space
from nnlab.ops.windows import Padding, check_operands_in_space, moves_of


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
) -> jax.Array:
    """Cross-correlation (1); the options are those of `nnlab.ops.adder.adder_conv`.

    Args:
        x: images [batch, height, width, in], sequences [batch, time, in] or volumes
            [batch, depth, height, width, in], floating.
        kernel: filters [kh, kw, in, out], [k, in, out] or [kd, kh, kw, in, out], floating.

    Returns:
        [batch, out height, out width, out], or with the axes of `x` in the place of these two, in
        the promoted dtype of the operands.

    Raises:
        ValueError: ranks, sizes or window do not fit.
        TypeError: an operand is not floating.
    """
    check_operands_in_space("conv", x, kernel)
    x, kernel = vary_alike(x, kernel)
    sizes = x.shape[1:-1], kernel.shape[:-2]
    moves = moves_of(*sizes, strides, padding, kernel_dilation)
    dtype = jnp.promote_types(x.dtype, kernel.dtype)
    op = functools.partial(in_space, _conv, moves)
    return of_images(op, x.astype(dtype), kernel.astype(dtype))


def flipped(kernel: jax.Array) -> jax.Array:
    """`kernel` [*taps, in, out] turned around along every axis of taps."""
    return lax.rev(kernel, range(kernel.ndim - 2))


def true_conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
    product: Callable[..., jax.Array] = conv,
) -> jax.Array:
    """True convolution (2): `product` of `x` and the flipped kernel, with the options as they are.

    Args:
        x, kernel: operands of `product`.
        product: `conv`, or another such op, as `nnlab.ops.adder.adder_conv`. That one does not
            commute, as what meets padding counts and is not 0.

    Returns:
        What `product` gives.

    Raises:
        ValueError, TypeError: as of `product`.
    """
    options: Any = dict(strides=strides, padding=padding, kernel_dilation=kernel_dilation)
    return product(x, flipped(kernel), **options)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x, kernel, window) -> jax.Array:
    return kernels.convolve(x, kernel, window)


def _conv_fwd(x, kernel, window):
    return _conv(x, kernel, window), (x, kernel)


def conv_cotangents(window, residuals, g):
    """Cotangents of (x, kernel), where that of `conv(x, kernel)` is g; all of one dtype."""
    x, kernel = residuals
    dx = kernels.convolve_input_gradient(g, x, kernel, window)
    dw = kernels.convolve_filter_gradient(g, x, kernel, window)
    return dx, dw


_conv.defvjp(_conv_fwd, conv_cotangents)
