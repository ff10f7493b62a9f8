"""Convolutions of float32 on a CPU by the native bodies in `nnlab/kernels/cpp`.

One set of loops serves multiplying and L1-type convolutions; a rule names the term that is summed.
No array may be empty. Narrower floats are widened for a call and its result is rounded.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.kernels.batch import over_images, sum_over_images
from nnlab.kernels.window import Window

HANDLERS = ("nnlab_conv", "nnlab_conv_input_gradient", "nnlab_conv_filter_gradient")


def conv(
    x: jax.Array, kernel: jax.Array, *, rule: Literal["distance", "product"] | str, window: Window
) -> jax.Array:
    """`sum_k -|x_k - w_k|` or `sum_k x_k w_k` over every window, [batch, out height, …, out].

    Here and below a rule may also be an own term's, by the name that `term_libraries.add` gave it.
    """
    positions = window.positions(x.shape[1:], kernel.shape)

    def call(x, kernel):
        shape = x.shape[0], *positions, kernel.shape[3]
        return _call("nnlab_conv", shape, rule, window, x, kernel)

    return over_images(call)(x, kernel)


def conv_input_gradient(
    g: jax.Array,
    x: jax.Array,
    kernel: jax.Array,
    *,
    rule: Literal["clip", "sign", "product"] | str,
    window: Window,
) -> jax.Array:
    """`sum_o g_o rule(w_o - x)`, or `sum_o g_o w_o`, over the windows that hold a pixel, as x."""

    def call(g, x, kernel):
        return _call("nnlab_conv_input_gradient", x.shape, rule, window, g, x, kernel)

    return over_images(call)(g, x, kernel)


def conv_filter_gradient(
    g: jax.Array,
    x: jax.Array,
    kernel: jax.Array,
    *,
    rule: Literal["sign", "product"] | str,
    window: Window,
) -> jax.Array:
    """`sum_p g_p sign(x_p - w)`, or `sum_p g_p x_p`, over all positions, as the kernel."""

    def call(g, x, kernel):
        return _call("nnlab_conv_filter_gradient", kernel.shape, rule, window, g, x, kernel)

    return sum_over_images(call)(g, x, kernel)


def _call(
    name: str, shape: tuple[int, ...], rule: str, window: Window, *operands: jax.Array
) -> jax.Array:
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    call = jax.ffi.ffi_call(name, result, vmap_method="sequential")
    wide = (operand.astype(jnp.float32) for operand in operands)
    return call(*wide, window=numbers_of(window), rule=rule).astype(operands[0].dtype)


def numbers_of(window: Window) -> np.ndarray:
    """Flatten a window as the library takes it: strides, padding at the top and left, dilation."""
    (top, _), (left, _) = window.padding
    return np.array([*window.strides, top, left, *window.dilation], np.int64)
