r"""Bodies of the Lp adder convolution, in XLA operations and for every platform.

They are the blocked sums of `nnlab.kernels.adder_xla`, so that nothing of size
[positions, in, out] exists. A power is taken as :math:`|d|^p = \exp(p \ln |d|)`, two vectorised
functions, where XLA's own power is a call for each number and six times slower on a CPU; it is off
by about :math:`(1 + p\,|\ln |d||)\,2^{-23}` of its size, and 0 for d = 0.

Operands are float32 or wider, of one dtype. Every function is jitted under its own name, by which
`nnlab.costs.count` knows its cost.
"""

import functools

import jax
import jax.numpy as jnp

from nnlab.kernels.adder_xla import filter_sum, input_sum, negative_sum
from nnlab.kernels.window import Window


def _slope(d: jax.Array, p: jax.Array) -> jax.Array:
    return p * jnp.sign(d) * jnp.exp((p - 1) * jnp.log(jnp.abs(d)))


@functools.partial(jax.jit, static_argnames="window")
def lp_adder_conv(x: jax.Array, p: jax.Array, kernel: jax.Array, *, window: Window) -> jax.Array:
    """`-sum_k |x_k - w_k|^p` of every window of `x` and every filter.

    Args:
        x: images [batch, height, width, in].
        p: a scalar above 1.
        kernel: filters [kh, kw, in, out].
        window: strides, padding (with zeros, which count) and dilation.

    Returns:
        [batch, out height, out width, out].
    """

    def term(x, w):
        return jnp.exp(p * jnp.log(jnp.abs(x - w)))

    return negative_sum(term, x, kernel, window, x.dtype)


@functools.partial(jax.jit, static_argnames="window")
def lp_adder_conv_input_gradient(
    g: jax.Array, x: jax.Array, p: jax.Array, kernel: jax.Array, *, window: Window
) -> jax.Array:
    """`sum_o g_o p sgn(w_o - x) |x - w_o|^(p-1)` over the windows that hold a pixel.

    `g` is the cotangent of the output [batch, out height, out width, out]; returns that of `x`.
    """
    return input_sum(lambda x, w: _slope(w - x, p), g, x, kernel, window)


@functools.partial(jax.jit, static_argnames="window")
def lp_adder_conv_filter_gradient(
    g: jax.Array, x: jax.Array, p: jax.Array, kernel: jax.Array, *, window: Window
) -> jax.Array:
    """`sum_n g_n p sgn(x_n - w) |x_n - w|^(p-1)` over all positions n, padded pixels included.

    `g` is the cotangent of the output; returns that of `kernel`.
    """
    return filter_sum(lambda x, w: _slope(x - w, p), g, x, kernel, window)
