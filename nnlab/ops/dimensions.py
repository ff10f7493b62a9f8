r"""Products along one, two and three axes, from a product of images.

The value of a product and its gradient rules are sums with one term for each input of a window, and
a sum does not ask along which axis an input lies. A sequence is an image of height 1. A volume is a
stack of images:

.. math:: y_{dpo} = \sum_{a,k} t(x_{s d + \delta a,\,p k}, w_{ako})                    (1)

with position d along the depth, tap a, stride s and dilation :math:`\delta`. For each d the frames
that meet the taps are put side by side as channels, which leaves one product of images. A frame of
padding is made of zeros like any other pixel of padding.

That takes kd / s copies of a volume (kd: taps along the depth) while a pass runs; the gradients
make them again. The cotangents of the copies are added up in float32 at least and rounded once, so
narrower volumes are widened first.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.ops.windows import Moves


def in_space(
    body: Callable[..., jax.Array],
    moves: Moves,
    x: jax.Array,
    kernel: jax.Array,
    *others: jax.Array,
) -> jax.Array:
    """Apply `body`, a product of images, along as many axes as `x` and `kernel` have.

    Args:
        body: function of images [batch, height, width, in], filters [kh, kw, in, out], `others`
            and a window. Its value and its cotangents are sums with one term for each input.
        moves: how the kernel moves along the axes of `x` between the first and the last.
        x: [batch, time, in], [batch, height, width, in] or [batch, depth, height, width, in].
        kernel: [k, in, out], [kh, kw, in, out] or [kd, kh, kw, in, out].
        *others: arrays that `body` takes as they are.

    Returns:
        [batch, *out sizes, out].
    """
    if x.ndim == 3:
        return body(x[:, None], kernel[None], *others, moves.plane)[:, 0]
    if x.ndim == 4:
        return body(x, kernel, *others, moves.plane)
    return _over_volumes(body, moves, x, kernel, *others)


def _over_volumes(body, moves, x, kernel, *others):
    wide = jnp.promote_types(x.dtype, jnp.float32)

    @jax.checkpoint  # keeps x, not its copies
    def op(x: jax.Array, kernel: jax.Array, *others: jax.Array) -> jax.Array:
        frames = _side_by_side(x.astype(wide), kernel.shape[0], moves)
        kd, kh, kw, inputs, features = kernel.shape
        taps = jnp.moveaxis(kernel.astype(wide), 0, 2).reshape(kh, kw, kd * inputs, features)
        n, depth, *image = frames.shape
        y = body(frames.reshape(n * depth, *image), taps, *others, moves.plane)  # (1)
        return y.reshape(n, depth, *y.shape[1:]).astype(x.dtype)

    return op(x, kernel, *others)


def _side_by_side(x: jax.Array, taps: int, moves: Moves) -> jax.Array:
    """For each position along the depth the frames under its taps, [batch, …, taps * in]."""
    stride, pads, dilation = moves.strides[0], moves.padding[0], moves.dilation[0]
    x = jnp.pad(x, ((0, 0), pads, (0, 0), (0, 0), (0, 0)))
    last = (taps - 1) * dilation
    frames = [
        lax.slice_in_dim(x, start, x.shape[1] - last + start, stride, axis=1)
        for start in range(0, last + 1, dilation)
    ]
    return jnp.concatenate(frames, axis=-1)
