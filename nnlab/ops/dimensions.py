r"""Convolution in one, two and three dimensions, from a product of images.

The value of a product and its gradient rules are sums of a term for each input of a window, and a
sum does not ask along which axis an input lies. A sequence is an image of height 1. Of volumes,

.. math:: y_{dpo} = \sum_{a,k} t(x_{s d + \delta a,\,p k}, w_{ako})                    (1)

with d a position along the depth, a a tap of it, s its stride and :math:`\delta` its dilation, is
the product of images, one for each d, in which the frames that meet the taps stand side by side as
channels. A frame of padding is made of zeros like any others.

That takes kd / s copies of a volume (kd: taps of the depth), for as long as one pass runs: for the
gradients they are made again. The cotangents of these copies are added up in float32 at least, and
rounded once, so in three dimensions narrower numbers are widened first.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.ops.windows import Moves

ImageProduct = Callable[..., Any]


def in_space(product: ImageProduct, moves: Moves, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`product` of the windows of `x` with `kernel`, along as many axes as they have.

    Args:
        product: of images [batch, height, width, in], filters [kh, kw, in, out] and a window. Its
            value and its cotangent rules are sums of terms, one for each input of a window.
        moves: of the kernel along the axes of `x` between the first and the last.
        x: [batch, time, in], [batch, height, width, in] or [batch, depth, height, width, in].
        kernel: [k, in, out], [kh, kw, in, out] or [kd, kh, kw, in, out].

    Returns:
        [batch, *out sizes, out].
    """
    if x.ndim == 3:
        return product(x[:, None], kernel[None], moves.plane)[:, 0]
    if x.ndim == 4:
        return product(x, kernel, moves.plane)
    return _of_volumes(product, moves, x, kernel)


def _of_volumes(product: ImageProduct, moves: Moves, x: jax.Array, kernel: jax.Array) -> jax.Array:
    dtype = jnp.promote_types(x.dtype, kernel.dtype)
    wide = jnp.promote_types(dtype, jnp.float32)

    @jax.checkpoint  # keeps x, not its copies
    def op(x: jax.Array, kernel: jax.Array) -> jax.Array:
        frames = _side_by_side(x.astype(wide), kernel.shape[0], moves)
        kd, kh, kw, inputs, features = kernel.shape
        taps = jnp.moveaxis(kernel.astype(wide), 0, 2).reshape(kh, kw, kd * inputs, features)
        n, depth, *image = frames.shape
        y = product(frames.reshape(n * depth, *image), taps, moves.plane)  # (1)
        return y.reshape(n, depth, *y.shape[1:]).astype(dtype)

    return op(x, kernel)


def _side_by_side(x: jax.Array, taps: int, moves: Moves) -> jax.Array:
    """For each position along the depth the frames of its taps, [batch, …, taps * in]."""
    stride, pads, dilation = moves.strides[0], moves.padding[0], moves.dilation[0]
    x = jnp.pad(x, ((0, 0), pads, (0, 0), (0, 0), (0, 0)))
    last = (taps - 1) * dilation
    frames = [
        lax.slice_in_dim(x, start, x.shape[1] - last + start, stride, axis=1)
        for start in range(0, last + 1, dilation)
    ]
    return jnp.concatenate(frames, axis=-1)
