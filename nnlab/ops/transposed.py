"""Preparation of a transposed convolution: zeros between the pixels, and the padding.

A transposed convolution of strides s, which makes images larger, is a convolution of stride 1 of
the images with s - 1 zeros between neighbours (Dumoulin and Visin, A guide to convolution
arithmetic for deep learning, 2016, https://arxiv.org/abs/1603.07285, chapter 4). It is the input
gradient of the convolution of strides s with the flipped kernel, its channels exchanged.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.ops.windows import Padding, per_axis


def spread(x: jax.Array, strides: int | Sequence[int]) -> jax.Array:
    """Put zeros between the pixels of `x` [batch, *sizes, channels], (size - 1) stride + 1 an axis.

    Raises:
        ValueError: `strides` are neither a positive integer nor one for each axis.
    """
    between = [(0, 0, stride - 1) for stride in per_axis("strides", strides, x.ndim - 2)]
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *between, (0, 0, 0)))


def transposed_padding(
    taps: Sequence[int],
    strides: int | Sequence[int],
    padding: Padding,
    kernel_dilation: int | Sequence[int] = 1,
) -> Padding:
    """Return the padding of images that were `spread`, as `jax.lax.conv_transpose` has it.

    Args:
        taps: taps of the kernel along each axis; an axis spans k = (taps - 1) dilation + 1 pixels.
        strides, kernel_dilation: one for all axes, or one for each.
        padding: "SAME" for n s pixels from n at stride s, "VALID" for (n - 1) s + max(k, s), where
            every window meets a pixel; anything else is taken as it is, for pixels of the spread
            image. PyTorch's `padding` p and `output_padding` r are (k - 1 - p, k - 1 - p +
            r) here.

    Returns:
        A pair for each axis, or `padding` itself.

    Raises:
        ValueError: strides or dilation are not positive integers, one for all axes or for each.
    """
    strides = per_axis("strides", strides, len(taps))
    dilation = per_axis("kernel_dilation", kernel_dilation, len(taps))
    if not isinstance(padding, str) or padding.upper() not in ("SAME", "VALID"):
        return padding
    pads = []
    for k, s, d in zip(taps, strides, dilation, strict=True):
        reach = (k - 1) * d
        if padding.upper() == "VALID":
            pads.append((reach, max(reach, s - 1)))
        else:
            low = min(reach, -(-(reach + s - 1) // 2))
            pads.append((low, reach + s - 1 - low))
    return pads
