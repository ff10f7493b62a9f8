"""How a kernel moves over an image."""

from collections.abc import Sequence
from typing import NamedTuple


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
