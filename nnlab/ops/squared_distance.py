r"""Squared distances: the L2 relative of the adder, and the Lp adder at p = 2.

.. math:: y_{po} = -\sum_k (x_{pk} - w_{ko})^2
                 = 2 \sum_k x_{pk} w_{ko} - \sum_k x_{pk}^2 - \sum_k w_{ko}^2          (1)

for every position p, input k of its window and filter o. A pixel of padding is a zero like any
other and contributes -w². By the second form it is a convolution and two sums of squares, as fast
as the convolution, and it is counted as what it is: this layer multiplies. Where x and w share an
offset much larger than their spread it loses digits, as any difference of large sums does.

============  ===============================  ====================
cotangent of  rule                             potential
============  ===============================  ====================
w (filter)    2 sum_p g_po (x_pk - w_ko)  (2)  -(x - w)^2, the true
x (input)     2 sum_o g_po (w_ko - x_pk)  (3)  gradients of (1)
============  ===============================  ====================

Up to the factor of 2, (2) is the filter gradient that AdderNet trains its L1 distances with. Sums
are taken in float32 at least, whatever the dtype of the operands.

References:
    Chen et al., AdderNet, CVPR 2020, https://arxiv.org/abs/1912.13200, eq. 5. Chen et al.,
    Universal Adder Neural Networks, 2021, https://arxiv.org/abs/2105.14202, where training begins
    with this distance.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nnlab.kernels.window import Window
from nnlab.ops.convolution import conv
from nnlab.ops.front import over_windows


def squared_distance_conv(x: jax.Array, kernel: jax.Array, **window) -> jax.Array:
    """Compute negative squared distances (1) of windows to filters.

    Args:
        x: images, sequences or volumes [batch, *sizes, in], floating.
        kernel: filters [*taps, in, out], floating.
        **window: strides, padding and kernel_dilation of `nnlab.ops.adder.adder_conv`.

    Returns:
        [batch, *out sizes, out], in the promoted dtype of the operands.

    Raises:
        ValueError: ranks, sizes or window do not fit.
        TypeError: an operand is not floating.
    """
    return over_windows("squared_distance_conv", _squared, x, kernel, **window, widen=True)


def _squared(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    strides, padding, dilation = window
    products = conv(x, w, strides=strides, padding=padding, kernel_dilation=dilation)
    squares = _sums_over_windows(jnp.square(x).sum(axis=3, keepdims=True), w.shape, window)
    of_weights = lax.broadcast_to_rank(jnp.square(w).sum(axis=(0, 1, 2)), 4)
    return 2 * products - squares - of_weights  # (1)


def _sums_over_windows(x: jax.Array, kernel_shape: Sequence[int], window: Window) -> jax.Array:
    strides, padding, dilation = window
    return lax.reduce_window(
        x,
        np.zeros((), x.dtype),  # known as 0, or the sum has no gradient
        lax.add,
        (1, *kernel_shape[:2], 1),
        (1, *strides, 1),
        ((0, 0), *padding, (0, 0)),
        window_dilation=(1, *dilation, 1),
    )
