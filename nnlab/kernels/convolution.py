"""Windows, and the multiplying convolution that moves over them."""

from typing import NamedTuple

import jax
from jax import lax


class Window(NamedTuple):
    """How a kernel moves over an image, as `jax.lax.conv_general_dilated` takes it."""

    strides: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)


POINT = Window()  # a dense layer seen as a convolution of 1×1 images


def convolve(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Cross-correlation of [batch, height, width, in] with [kh, kw, in, out], zeros around."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window.strides,
        window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
