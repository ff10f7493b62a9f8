"""The multiplying convolution, with gradients that stay fast inside compiled loops.

Value and gradients are those of `jax.lax.conv_general_dilated`; why it is not simply that one is
told in `nnlab.kernels.convolution`. Reverse mode only.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from nnlab.kernels import convolution as kernels
from nnlab.kernels.batch import of_images, vary_alike
from nnlab.ops.windows import Padding, check_operands, window_of


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
) -> jax.Array:
    """Cross-correlation; the options are those of `nnlab.ops.adder.adder_conv`.

    Args:
        x: images [batch, height, width, in], floating.
        kernel: filters [kh, kw, in, out], floating.

    Returns:
        [batch, out height, out width, out], in the promoted dtype of the operands.

    Raises:
        ValueError: ranks, sizes or window do not fit.
        TypeError: an operand is not floating.
    """
    check_operands("conv", x, kernel)
    x, kernel = vary_alike(x, kernel)
    window = window_of(x.shape, kernel.shape, strides, padding, kernel_dilation)
    dtype = jnp.promote_types(x.dtype, kernel.dtype)
    return of_images(lambda *a: _conv(*a, window), x.astype(dtype), kernel.astype(dtype))


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
