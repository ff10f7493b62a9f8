r"""Local response normalisation over neighbouring channels.

.. math:: y_c = x_c \, d_c^{-\beta}, \qquad d_c = k + \alpha \sum_{j \in N(c)} x_j^2,            (1)

over the n channels N(c) from c - floor(n / 2) to c + floor((n - 1) / 2); those that do not exist
count as 0. The gradient is the true one,

.. math:: \bar x_i = \bar y_i d_i^{-\beta}
    - 2 \alpha \beta \, x_i \sum_{c : i \in N(c)} \bar y_c x_c d_c^{-\beta - 1}.                 (2)

PyTorch's `LocalResponseNorm` and Caffe divide alpha by n, the paper does not: the alpha here is
theirs divided by n.

References:
    Krizhevsky et al., ImageNet classification with deep convolutional neural networks, NeurIPS
    2012, section 3.3.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from nnlab.errors import InputError
from nnlab.kernels.derivatives import linear_map


def local_response_norm(
    x: jax.Array, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> jax.Array:
    """Divide every number by a power of its channel neighbourhood's energy, as in (1).

    Args:
        x: [..., channels], floating.
        size: channels n of a neighbourhood; if n is even, one more before than after.
        alpha: weight of each square, not negative.
        beta: the power.
        k: added to the weighted squares, positive.

    Returns:
        Shape and dtype of `x`; computed in float32 or wider.

    Raises:
        ValueError: `x` has no axis, `size` is below 1, `alpha` is negative or `k` not positive.
        TypeError: `x` is not floating.
    """
    if x.ndim < 1:
        raise InputError(f"local_response_norm takes x [..., channels], not {x.shape}.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"local_response_norm expects a floating x, not {x.dtype}.")
    if size < 1:
        raise InputError(f"local_response_norm needs a size of at least 1, not {size}.")
    if not (alpha >= 0 and k > 0):
        raise InputError(
            f"local_response_norm needs alpha of at least 0 and k above 0, not {alpha} and {k}."
        )
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    y: Any = _normalized(wide, size, alpha, beta, k)
    return y.astype(x.dtype)


def _window_sums(x: jax.Array, before: int, after: int) -> jax.Array:
    """Sum over the channels from `before` places earlier to `after` places later."""
    channels = x.shape[-1]
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(before, after)])
    return functools.reduce(
        jnp.add, [x[..., place : place + channels] for place in range(before + after + 1)]
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3, 4))
def _normalized(x: jax.Array, size: int, alpha: float, beta: float, k: float) -> jax.Array:
    d = k + alpha * _window_sums(x * x, size // 2, (size - 1) // 2)
    return x * jnp.exp(-beta * jnp.log(d))  # (1); jnp.power is one scalar call a number on a CPU


def _normalized_bwd(size, alpha, beta, k, x, g):
    before, after = size // 2, (size - 1) // 2
    d = k + alpha * _window_sums(x * x, before, after)
    scaled = g * jnp.exp(-beta * jnp.log(d))
    shared = _window_sums(scaled * x / d, after, before)
    return scaled - 2 * alpha * beta * x * shared  # (2)


@_normalized.defjvp
def _normalized_jvp(size, alpha, beta, k, primals, tangents):
    def run(residuals, operands):
        [x], [t] = residuals, operands
        before, after = size // 2, (size - 1) // 2
        d = k + alpha * _window_sums(x * x, before, after)
        shared = _window_sums(x * t, before, after)
        return [jnp.exp(-beta * jnp.log(d)) * (t - 2 * alpha * beta * x / d * shared)]

    def transpose(residuals, cotangents):
        return [_normalized_bwd(size, alpha, beta, k, *residuals, *cotangents)]

    y: Any = _normalized(*primals, size, alpha, beta, k)
    return y, linear_map(run, transpose, primals, tangents, [y])[0]
