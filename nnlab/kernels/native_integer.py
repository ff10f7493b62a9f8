"""Integer kernels on a CPU by the native bodies in `nnlab/kernels/cpp/integer*`.

They are to integers what `nnlab.kernels.native` is to floats. No array may be empty.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.kernels.batch import over_images
from nnlab.kernels.native import numbers_of
from nnlab.kernels.window import Window

HANDLERS = (
    "nnlab_adder_conv_uint8",
    "nnlab_binary_conv_packed",
    "nnlab_pack_signs",
    "nnlab_ternary_dense_packed",
)


def adder_conv_uint8(
    x: jax.Array, padding_value: jax.Array, kernel: jax.Array, *, window: Window
) -> jax.Array:
    """See `nnlab.kernels.integer.adder_conv_uint8`."""

    def call(x, padding_value, kernel):
        result = _sums(x, kernel, window)
        run = jax.ffi.ffi_call("nnlab_adder_conv_uint8", result, vmap_method="sequential")
        return run(x, padding_value, kernel, window=numbers_of(window))

    return over_images(call)(x, padding_value, kernel)


def binary_conv_packed(
    x: jax.Array, kernel: jax.Array, *, channels: int, window: Window
) -> jax.Array:
    """See `nnlab.kernels.packed.binary_conv_packed`."""

    def call(x, kernel):
        result = _sums(x, kernel, window)
        run = jax.ffi.ffi_call("nnlab_binary_conv_packed", result, vmap_method="sequential")
        return run(x, kernel, window=numbers_of(window), channels=channels)

    return over_images(call)(x, kernel)


def pack_signs(x: jax.Array) -> jax.Array:
    """See `nnlab.kernels.packed.pack_signs`."""

    def call(x):
        words = jax.ShapeDtypeStruct((x.shape[0], -(-x.shape[1] // 32)), jnp.uint32)
        run = jax.ffi.ffi_call("nnlab_pack_signs", words, vmap_method="broadcast_all")
        return run(x.astype(jnp.float32))

    vectors = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return over_images(call, kernels=0)(vectors).reshape(*x.shape[:-1], -1)


def ternary_dense_packed(
    x: jax.Array, packed: jax.Array, *, features: int, digits: int
) -> jax.Array:
    """See `nnlab.kernels.ternary.ternary_dense_packed`; x [rows, in] holds the bytes of int8."""

    def call(x, packed):
        result = jax.ShapeDtypeStruct((x.shape[0], features), jnp.int32)
        run = jax.ffi.ffi_call("nnlab_ternary_dense_packed", result, vmap_method="sequential")
        return run(x, packed, digits=np.int64(digits))

    return over_images(call)(x, packed)


def _sums(x: jax.Array, kernel: jax.Array, window: Window) -> jax.ShapeDtypeStruct:
    positions = window.positions(x.shape[1:], kernel.shape)
    return jax.ShapeDtypeStruct((x.shape[0], *positions, kernel.shape[3]), jnp.int32)
