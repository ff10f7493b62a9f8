r"""Stochastic pooling: a pixel drawn from each window, the larger the likelier.

In training, for the pixels a_k of window p, each channel by itself,

.. math:: y_p = a_l, \quad l \sim P(l = k) = a_k / \sum_{j \in p} a_j                          (1)

and in evaluation their mean by these probabilities,

.. math:: y_p = \sum_{k \in p} a_k^2 / \sum_{j \in p} a_j.                                      (2)

(1) needs pixels that are not negative, as they are behind a ReLU: a negative pixel counts as 0 in
both, and a window without any above 0 is 0. The cotangent of (1) goes to the pixel that was drawn,
that of (2) is the true gradient, and at 0 and below both are 0.

References:
    Zeiler & Fergus, Stochastic pooling for regularization of deep convolutional neural networks,
    ICLR 2013, https://arxiv.org/abs/1301.3557, eqs. 4, 5 and 6.
"""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from nnlab.kernels.batch import auto_sharded
from nnlab.kernels.window import Window
from nnlab.ops.pooling_windows import (
    Taps,
    pooling_window,
    to_chosen,
    window_pixels,
)
from nnlab.ops.windows import Padding


def stochastic_pool(
    key: jax.Array,
    x: jax.Array,
    window: int | Sequence[int] = 2,
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """A pixel of every window by (1), for training.

    Args:
        key: of the draws, one a window and channel.
        x: images [batch, height, width, channels], floating, not negative.
        window, strides, padding: as of `nnlab.ops.pooling.max_pool`; a pixel of padding is 0.

    Returns:
        [batch, out height, out width, channels], dtype of `x`; computed in float32 at least. A
        window whose sum is not finite gives that sum, and its pixels get no cotangent.

    Raises:
        ValueError: `x` has not four axes, or the window holds no pixel or too many or does not fit.
        TypeError: `x` is not floating.
    """
    taps, moves = pooling_window("stochastic_pool", x, window, strides, padding)
    shape = x.shape[0], *moves.positions(x.shape[1:], taps), x.shape[3]
    uniform = jax.random.uniform(key, shape, jnp.promote_types(x.dtype, jnp.float32))
    return auto_sharded(lambda x, uniform: _drawn(x, uniform, taps, moves), x, uniform)


def expected_pool(
    x: jax.Array,
    window: int | Sequence[int] = 2,
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """The mean (2) of every window, for evaluation; arguments and errors as above."""
    taps, moves = pooling_window("expected_pool", x, window, strides, padding)

    def means(x):
        pixels = _not_negative(x, taps, moves)
        total = sum(pixels)
        squares = sum(pixel * pixel for pixel in pixels)
        return (squares / jnp.where(total > 0, total, 1)).astype(x.dtype)  # (2)

    return auto_sharded(means, x)


def _not_negative(x: jax.Array, taps: Taps, moves: Window) -> list[jax.Array]:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return window_pixels(jax.nn.relu(wide), taps, moves, 0.0)


def _choice(x, uniform, taps, moves):
    """What (1) gives, and the number of the pixel, int8; -1 for none."""
    pixels = _not_negative(x, taps, moves)
    sums = list(itertools.accumulate(pixels))
    total = sums[-1]
    y, chosen = jnp.zeros_like(total), jnp.full(total.shape, -1, jnp.int8)
    for place in reversed(range(len(pixels))):
        reached = uniform * total < sums[place]
        y = jnp.where(reached, pixels[place], y)
        chosen = jnp.where(reached, jnp.int8(place), chosen)
    finite = jnp.isfinite(total)
    return jnp.where(finite, y, total).astype(x.dtype), jnp.where(finite, chosen, jnp.int8(-1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _drawn(x: jax.Array, uniform: jax.Array, taps: Taps, moves: Window) -> jax.Array:
    return _choice(x, uniform, taps, moves)[0]


def _drawn_fwd(x, uniform, taps, moves):
    y, chosen = _choice(x, uniform, taps, moves)
    return y, (chosen, x[:0])


def _drawn_bwd(taps, moves, residuals, g):
    chosen, x = residuals
    return to_chosen(g, chosen, taps, moves, x.shape[1:3]), None


_drawn.defvjp(_drawn_fwd, _drawn_bwd)
