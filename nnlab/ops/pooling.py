r"""Maxima over windows that lie side by side.

.. math:: y_{pc} = \max_{k \in p} x_{kc}

for window p and channel c. The cotangent of y goes to the first pixel, row by row, that is equal to
it: the gradient wherever one pixel is largest, and at ties the choice that XLA makes as well.
XLA's own gradient (`select_and_scatter`) writes indices of every pixel on a CPU, and takes as long
as the convolutions beside it; this one keeps a byte for every output and is one fused loop.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from nnlab.errors import InputError
from nnlab.kernels.batch import of_images
from nnlab.ops.windows import pair


def max_pool(x: jax.Array, window: int | Sequence[int] = 2) -> jax.Array:
    """Largest value of every window, of which the strides are the size.

    Args:
        x: images [batch, height, width, channels], floating.
        window: height and width of a window, at most 127 pixels together; rows and columns that do
            not fill one are left out.

    Returns:
        [batch, height // window height, width // window width, channels], dtype of `x`. A NaN in
        a window is its maximum, and its first pixel then gets the cotangent.

    Raises:
        ValueError: `x` has not four axes, or the window holds no pixel or too many.
        TypeError: `x` is not floating.
    """
    kh, kw = pair("window", window)
    if x.ndim != 4:
        raise InputError(f"max_pool takes x [batch, height, width, channels], not {x.shape}.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"max_pool expects a floating x, not {x.dtype}.")
    if not 0 < kh * kw < 128:
        raise InputError(f"max_pool needs a window of 1 to 127 pixels, not {kh} by {kw}.")
    return of_images(lambda x: _max_pool(x, (kh, kw)), x)


def _pixels(x: jax.Array, window: tuple[int, int]) -> list[jax.Array]:
    """The first, second, … pixel of all windows, row by row."""
    (kh, kw), (_, height, width, _) = window, x.shape
    height, width = height // kh * kh, width // kw * kw
    return [x[:, i:height:kh, j:width:kw] for i in range(kh) for j in range(kw)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x: jax.Array, window: tuple[int, int]) -> jax.Array:
    return functools.reduce(jnp.maximum, _pixels(x, window))


def _max_pool_fwd(x, window):
    y: Any = _max_pool(x, window)
    first = jnp.zeros(y.shape, jnp.int8)
    for place, pixel in reversed(list(enumerate(_pixels(x, window)))):
        first = jnp.where(pixel < y, first, jnp.int8(place))
    return y, (first, x[:0])


def _max_pool_bwd(window, residuals, g):
    first, x = residuals
    (kh, kw), (n, height, width, channels) = window, g.shape
    places = jnp.arange(kh * kw, dtype=jnp.int8).reshape(kh, 1, kw, 1)
    chosen = first[:, :, None, :, None] == places
    dx = jnp.where(chosen, g[:, :, None, :, None], 0).reshape(n, height * kh, width * kw, channels)
    rest = x.shape[1] - height * kh, x.shape[2] - width * kw
    return (jnp.pad(dx, ((0, 0), (0, rest[0]), (0, rest[1]), (0, 0))),)


_max_pool.defvjp(_max_pool_fwd, _max_pool_bwd)
