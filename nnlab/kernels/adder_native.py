"""Calls of the native bodies of the adder convolution, `nnlab/kernels/cpp`; float32 on a CPU.

Arguments and results are those of the functions of the same names in `nnlab.kernels.adder`; no
array is empty. Under `jax.vmap` a new axis of the images joins the batch, as long as the kernel has
no such axis and the result is made of images too; in any other case the calls run in turn.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from nnlab.kernels.convolution import Window


def adder_conv(x: jax.Array, kernel: jax.Array, *, window: Window) -> jax.Array:
    positions = window.positions(x.shape[1:], kernel.shape)

    def call(x, kernel):
        return _call("adder_conv", (x.shape[0], *positions, kernel.shape[3]), window, x, kernel)

    return _joining_batches(call)(x, kernel)


def adder_conv_input_gradient(
    g: jax.Array, x: jax.Array, kernel: jax.Array, *, rule: Literal["clip", "sign"], window: Window
) -> jax.Array:
    def call(g, x, kernel):
        name, clip = "adder_conv_input_gradient", np.bool_(rule == "clip")
        return _call(name, x.shape, window, g, x, kernel, clip=clip)

    return _joining_batches(call)(g, x, kernel)


def adder_conv_filter_gradient(
    g: jax.Array, x: jax.Array, kernel: jax.Array, *, window: Window
) -> jax.Array:
    return _call("adder_conv_filter_gradient", kernel.shape, window, g, x, kernel)


def _call(
    name: str, shape: tuple[int, ...], window: Window, *operands: jax.Array, **attributes: Any
) -> jax.Array:
    (top, _), (left, _) = window.padding
    numbers = np.array([*window.strides, top, left, *window.dilation], np.int64)
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    call = jax.ffi.ffi_call(f"nnlab_{name}", result, vmap_method="sequential")
    return call(*operands, window=numbers, **attributes)


def _joining_batches(call: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`call(*images, kernel) -> images` with its rule for `vmap`."""
    mapped = custom_vmap(call)

    @mapped.def_vmap
    def _(size, axes, *operands):
        *images, kernel = operands
        if axes[-1]:
            return jax.vmap(call, [0 if axis else None for axis in axes])(*operands), True
        images = [
            image if axis else jnp.broadcast_to(image, (size, *image.shape))
            for image, axis in zip(images, axes[:-1], strict=True)
        ]
        result = mapped(*(image.reshape(-1, *image.shape[2:]) for image in images), kernel)
        return result.reshape(size, -1, *result.shape[1:]), True

    return mapped
