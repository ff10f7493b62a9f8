r"""Twice the height and width, in any arithmetic.

A transposed convolution of 4×4 windows at stride 2 is the adjoint of a convolution, or a
convolution of the image with zeros between its pixels. For an arithmetic that does not multiply it
is neither: an L1 distance has no adjoint, and each of the zeros, three quarters of the terms, would
cost \|w\|. Without the zeros each output pixel is a sum over 2×2 input pixels, with one of four
filters by whether its row and column are even or odd. That is how `Upsample` defines it:

*   "subpixel": one convolution of 2×2 windows to 4 × features, whose results are the four pixels
    (Shi et al., 2016). It has the parameters of the transposed convolution and in float its values
    (`subpixel_kernel`), and a term of any arithmetic takes the place of each product.
*   "nearest": every pixel twice in both directions, then a convolution of 3×3 windows (Odena et
    al., 2016). It also sees 2×2 input pixels, with 9 weights for the other's 16 and 9 terms for 4.

References:
    Shi et al., Real-Time Single Image and Video Super-Resolution, CVPR 2016,
    https://arxiv.org/abs/1609.05158, and Is the deconvolution layer the same as a convolutional
    layer?, https://arxiv.org/abs/1609.07009.
    Odena et al., Deconvolution and Checkerboard Artifacts, Distill 2016.
"""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.errors import InputError

Upsampling = Literal["subpixel", "nearest"]


class Upsample(nn.Module):
    """Images [batch, height, width, in] to [batch, 2 height, 2 width, features].

    Attributes:
        conv: that of an arithmetic.
        features: channels of the result.
        kind: see above.
        use_bias: whether to add a bias to each feature.
        dtype: of the computation.

    Raises:
        InputError: `kind` is another one.
    """

    conv: Callable[..., nn.Module]
    features: int
    kind: Upsampling = "subpixel"
    use_bias: bool = False
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.kind == "nearest":
            y = self.conv(self.features, (3, 3), padding=1, dtype=self.dtype, name="conv")(twice(x))
        elif self.kind == "subpixel":
            layer = self.conv(4 * self.features, (2, 2), padding=1, dtype=self.dtype, name="conv")
            y = _interleaved(layer(x), self.features)
        else:
            raise InputError(f'kind must be "subpixel" or "nearest", not {self.kind!r}.')
        if self.use_bias:
            y += self.param("bias", nn.initializers.zeros, (self.features,)).astype(y.dtype)
        return y


def twice(x: jax.Array) -> jax.Array:
    """Return images [batch, height, width, channels] with every pixel twice in both directions."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


def _interleaved(y: jax.Array, features: int) -> jax.Array:
    """Return the pixels of windows [batch, h + 1, w + 1, 2 × 2 × features] in their places.

    Window (i, j) covers rows i - 1 and i: it gives the odd row before i and the even row after it.
    """
    n, high, wide = y.shape[0], y.shape[1] - 1, y.shape[2] - 1
    y = y.reshape(n, high + 1, wide + 1, 2, 2, features)
    rows = [
        jnp.stack([y[:, a : a + high, b : b + wide, a, b] for b in (0, 1)], axis=3) for a in (0, 1)
    ]
    return jnp.stack(rows, axis=2).reshape(n, 2 * high, 2 * wide, features)


def subpixel_kernel(weight: jax.Array) -> jax.Array:
    """Return the kernel [2, 2, in, 4 × out] of a transposed convolution of stride 2 and padding 1.

    Args:
        weight: [in, out, 4, 4], as in `torch.nn.ConvTranspose2d(in, out, 4, 2, 1)`.
    """
    inputs, outputs = weight.shape[:2]
    # Row 2m + a of the result meets rows m + a - 1 and m + a with taps 3 - a and 1 - a.
    flipped = weight[:, :, ::-1, ::-1].reshape(inputs, outputs, 2, 2, 2, 2)
    return flipped.transpose(2, 4, 0, 3, 5, 1).reshape(2, 2, inputs, 4 * outputs)
