r"""Fast bodies of the adder convolution: the forward pass and the two L1-type gradients.

Each function has a body written in XLA operations (`nnlab.kernels.adder_xla`), which is the
reference and runs everywhere, and for float32 and narrower floats, whose sums are taken in float32,
two faster ones: on a CPU a native one (`nnlab/kernels/cpp`), about as fast as the processor can
add, and on an Nvidia GPU one in Pallas (`nnlab.kernels.adder_gpu`), for all but the filter
gradient. The platform that a program is compiled for decides.

All take distances as written, :math:`|x - w|`. The identity
:math:`\sum |x - w| = 2\sum\max(x, w) - \sum x - \sum w` has one instruction less a term, but loses
the digits of an offset that x and w share and turns infinity into NaN; and where the maximum and
the sum compete for the same ports of the processor (AMD Zen 4, two cores: 59 thousand million terms
a second, against 71 as written; `experiments/benchmarks/results/speed.json`), it is not even
faster.

Every function is jitted under its own name, by which `nnlab.costs.count` knows its cost.
"""

import functools
from typing import Literal

import jax

from nnlab.kernels import adder_gpu as gpu
from nnlab.kernels import adder_xla as xla
from nnlab.kernels import native
from nnlab.kernels.batch import sum_over_images
from nnlab.kernels.derivatives import differentiated_as
from nnlab.kernels.selection import by_platform
from nnlab.kernels.window import Window


@functools.partial(jax.jit, static_argnames="window")
def adder_conv(x: jax.Array, kernel: jax.Array, *, window: Window) -> jax.Array:
    r"""Negative L1 distance of every window of `x` to every filter.

    Args:
        x: images [batch, height, width, in], floating.
        kernel: filters [kh, kw, in, out], dtype of `x`.
        window: strides, padding (with zeros, which count) and dilation.

    Returns:
        [batch, out height, out width, out], dtype of `x`. NaN, and infinities of one sign that
        meet, give NaN. A native sum over K terms is off by at most
        :math:`(146 + K / 144)\,2^{-24}` of its size, whatever offset x and kernel share.
    """
    return by_platform(
        functools.partial(xla.adder_conv, window=window),
        x,
        kernel,
        native=functools.partial(native.conv, rule="distance", window=window),
        pallas=functools.partial(gpu.adder_conv, window=window),
    )


@functools.partial(jax.jit, static_argnames=("rule", "window"))
def adder_conv_input_gradient(
    g: jax.Array, x: jax.Array, kernel: jax.Array, *, rule: Literal["clip", "sign"], window: Window
) -> jax.Array:
    """`sum_o g_o r(w_o - x)` over the windows that hold a pixel, r = HardTanh or sign.

    Args:
        g: cotangent of the output [batch, out height, out width, out].
        x, kernel: the operands of `adder_conv`.

    Returns:
        [batch, height, width, in], dtype of `x`.
    """
    return by_platform(
        functools.partial(xla.adder_conv_input_gradient, rule=rule, window=window),
        g,
        x,
        kernel,
        native=functools.partial(native.conv_input_gradient, rule=rule, window=window),
        pallas=functools.partial(gpu.adder_conv_input_gradient, rule=rule, window=window),
    )


@functools.partial(jax.jit, static_argnames="window")
def adder_conv_filter_gradient(
    g: jax.Array, x: jax.Array, kernel: jax.Array, *, window: Window
) -> jax.Array:
    """`sum_p g_p sign(x_p - w)` over all positions, padded pixels included.

    Args:
        g: cotangent of the output [batch, out height, out width, out].
        x, kernel: the operands of `adder_conv`.

    Returns:
        [kh, kw, in, out], dtype of `x`.
    """

    def body(g, x, kernel):
        return xla.adder_conv_filter_gradient(g, x, kernel, window=window)

    return by_platform(
        differentiated_as(sum_over_images(body), body),
        g,
        x,
        kernel,
        native=functools.partial(native.conv_filter_gradient, rule="sign", window=window),
    )
