r"""The conjugate adder convolution, as a difference of two adder convolutions.

:math:`2\,\mathrm{sgn}(x)\,\mathrm{sgn}(w) \min(|x|, |w|) = |x + w| - |x - w|`, and with the adder's
fast bodies the two sums take half the time of XLA's loop over the minima. Hardware takes minima;
the function is jitted under its own name so that `nnlab.costs.count` counts those.
"""

import functools

import jax

from nnlab.kernels.adder import adder_conv
from nnlab.kernels.window import Window


@functools.partial(jax.jit, static_argnames="window")
def conjugate_adder_conv(x: jax.Array, kernel: jax.Array, *, window: Window) -> jax.Array:
    """`sum_k |x_k + w_k| - |x_k - w_k|` of every window of `x` and every filter.

    Args:
        x: images [batch, height, width, in], floating.
        kernel: filters [kh, kw, in, out], dtype of `x`.
        window: strides, padding (with zeros, which add nothing) and dilation.

    Returns:
        [batch, out height, out width, out], dtype of `x`. The error is that of both sums, each as
        large as all distances, not as their difference.
    """
    return adder_conv(x, kernel, window=window) - adder_conv(x, -kernel, window=window)
