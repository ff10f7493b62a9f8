"""Windows, and the multiplying convolution that moves over them, in its three passes.

On a CPU, XLA runs the gradients that JAX derives from a convolution many times slower
inside a loop (and a compiled epoch is a loop) than outside: there it does not bring their unusual
dimension orders into the one that its fast body takes. Written out as forward convolutions in the
usual order, they run as fast inside as outside and give the same bits. Other platforms recognise
the derived form, and keep it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax import lax


class Window(NamedTuple):
    """How a kernel moves over an image, as `jax.lax.conv_general_dilated` takes it."""

    strides: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)

    def positions(self, image: Sequence[int], kernel: Sequence[int]) -> tuple[int, int]:
        """How many windows of a kernel (kh, kw, …) fit on an image (height, width, …)."""
        height, width = (
            (size + sum(pads) - (taps - 1) * dilation - 1) // stride + 1
            for size, pads, taps, dilation, stride in zip(
                image[:2], self.padding, kernel[:2], self.dilation, self.strides, strict=True
            )
        )
        return height, width


POINT = Window()  # a dense layer seen as a convolution of 1×1 images
_ORDER = ("NHWC", "HWIO", "NHWC")


def convolve(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Cross-correlation of x [batch, height, width, in] with kernel [kh, kw, in, out].

    Pixels of padding are zeros. Returns [batch, out height, out width, out].
    """
    strides, padding, dilation = window
    return lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=_ORDER
    )


def convolve_input_gradient(
    g: jax.Array, x: jax.Array, kernel: jax.Array, window: Window
) -> jax.Array:
    """Cotangent of `x` in `convolve`, given that of the output, `g`; reads only its shape."""
    (pads_h, pads_w), dilation = window.padding, window.dilation

    def sides(axis, pads):
        reach = (kernel.shape[axis] - 1) * dilation[axis]
        low = reach - pads[0]
        spread = (g.shape[1 + axis] - 1) * window.strides[axis] + 1
        return low, x.shape[1 + axis] + reach - spread - low

    def written_out(g, kernel):
        return lax.conv_general_dilated(
            g,
            lax.rev(kernel, (0, 1)).swapaxes(2, 3),
            (1, 1),
            (sides(0, pads_h), sides(1, pads_w)),
            lhs_dilation=window.strides,
            rhs_dilation=dilation,
            dimension_numbers=_ORDER,
        )

    def derived(g, kernel):
        return jax.linear_transpose(lambda x: convolve(x, kernel, window), x)(g)[0]

    return lax.platform_dependent(g, kernel, cpu=written_out, default=derived)


def convolve_filter_gradient(
    g: jax.Array, x: jax.Array, kernel: jax.Array, window: Window
) -> jax.Array:
    """Cotangent of `kernel` in `convolve`, given that of the output, `g`; reads only its shape."""

    def written_out(g, x):
        dw = lax.conv_general_dilated(
            x.transpose(3, 1, 2, 0),
            g.transpose(1, 2, 0, 3),
            window.dilation,
            window.padding,
            rhs_dilation=window.strides,
            dimension_numbers=_ORDER,
        )
        return dw.transpose(1, 2, 0, 3)[: kernel.shape[0], : kernel.shape[1]]

    def derived(g, x):
        return jax.linear_transpose(lambda w: convolve(x, w, window), kernel)(g)[0]

    return lax.platform_dependent(g, x, cpu=written_out, default=derived)
