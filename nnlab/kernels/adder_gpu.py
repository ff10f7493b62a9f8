"""GPU bodies of the adder convolution: the forward pass and the input gradient, in Pallas.

Both are sums of terms over windows, which `nnlab.kernels.adder_triton` does. The forward pass walks
over x. The input gradient walks over the cotangents, in one phase of pixels for each offset modulo
the strides, so that every tap that it visits counts; cotangents past the edge are zeros, which a
NaN in the kernel turns into NaN.

Arguments and results are those of the functions of the same names in `nnlab.kernels.adder`, in
float32 or narrower; sums are taken in float32. `interpret` runs them anywhere, slowly.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from nnlab.kernels import adder_xla as xla
from nnlab.kernels.adder_triton import (
    LARGEST,
    Tile,
    Walk,
    sum_terms,
)
from nnlab.kernels.batch import over_images
from nnlab.kernels.window import Window


def adder_conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    window: Window,
    tile: Tile | None = None,
    interpret: bool = False,
) -> jax.Array:
    """See `nnlab.kernels.adder.adder_conv`."""

    def call(x, kernel):
        positions = x.shape[0], *window.positions(x.shape[1:], kernel.shape)
        vectors = _channels_first(x, window.padding)
        if max(vectors.size, math.prod(positions) * kernel.shape[3]) > LARGEST:
            return xla.adder_conv(x, kernel, window=window)
        walk = Walk((0, 0), window.strides, window.dilation)
        return sum_terms("distance", vectors, kernel, None, positions, walk, tile, interpret)

    return over_images(call)(x, kernel)


def adder_conv_input_gradient(
    g: jax.Array,
    x: jax.Array,
    kernel: jax.Array,
    *,
    rule: Literal["clip", "sign"],
    window: Window,
    tile: Tile | None = None,
    interpret: bool = False,
) -> jax.Array:
    """See `nnlab.kernels.adder.adder_conv_input_gradient`."""

    def call(g, x, kernel):
        n, height, width, channels = x.shape
        sizes = (
            x.shape[1:3],
            g.shape[1:3],
            kernel.shape[:2],
            *window._replace(padding=[low for low, _ in window.padding]),
        )
        rows, columns = (_phases(*axis) for axis in zip(*sizes, strict=True))
        sh, sw = window.strides
        spare = (0, -height % sh), (0, -width % sw)
        vectors = _channels_first(g, (rows.padding, columns.padding))
        if max(vectors.size, x.size) > LARGEST:
            return xla.adder_conv_input_gradient(g, x, kernel, rule=rule, window=window)
        pixels = jnp.pad(x, ((0, 0), *spare, (0, 0)))
        pixels = pixels.reshape(n, rows.size, sh, columns.size, sw, channels)

        def phase(i, j):
            mine = pixels[:, :, i, :, j]
            if rows.taps[i] is None or columns.taps[j] is None:
                return jnp.zeros_like(mine)
            (a, first_a, step_a), (b, first_b, step_b) = rows.taps[i], columns.taps[j]
            walk = Walk((first_a, first_b), (1, 1), (step_a, step_b))
            weights = kernel[a, b].swapaxes(2, 3)
            return sum_terms(rule, vectors, weights, mine, mine.shape[:3], walk, tile, interpret)

        phases = [jnp.stack([phase(i, j) for j in range(sw)], axis=3) for i in range(sh)]
        dx = jnp.stack(phases, axis=2).reshape(n, rows.size * sh, columns.size * sw, channels)
        return dx[:, :height, :width]

    return over_images(call)(g, x, kernel)


class _Phases(NamedTuple):
    """Along one axis, pixels `stride * i + phase`, and the taps through which they see cotangents.

    Of a phase: its taps as a slice of the kernel, the padded cotangent in which pixel 0 meets the
    first of them, and the step from there to the next; None without taps.
    """

    size: int  # number of pixels of a phase
    padding: tuple[int, int]  # of the cotangents
    taps: list[tuple[slice, int, int] | None]


def _phases(size: int, out: int, taps: int, stride: int, low: int, dilation: int) -> _Phases:
    count = -(-size // stride)
    before = (taps - 1) * dilation // stride
    after = max(0, count - out + (stride - 1 + low) // stride)
    apart = stride // math.gcd(stride, dilation)

    def of_phase(phase):
        # Pixel i meets tap a in cotangent i + (phase + low - a * dilation) / stride, if integer.
        for a in range(min(apart, taps)):
            first, rest = divmod(phase + low - a * dilation, stride)
            if not rest:
                return slice(a, None, apart), before + first, -apart * dilation // stride
        return None

    return _Phases(count, (before, after), [of_phase(phase) for phase in range(stride)])


def _channels_first(x: jax.Array, padding: Sequence[tuple[int, int]]) -> jax.Array:
    return jnp.pad(x, ((0, 0), *padding, (0, 0))).transpose(3, 0, 1, 2)
