r"""Activations by their textbook names, and two that JAX does not have.

============  ==========================================  =================================
name          value                                       gradient
============  ==========================================  =================================
`purelin`     x                                           1
`hardlim`     1 for x of 0 or more, else 0                0: no layer before it learns
`logsig`      1 / (1 + exp(-x)), `jax.nn.sigmoid`         y (1 - y)
`tansig`      2 / (1 + exp(-2 x)) - 1, `jax.numpy.tanh`   1 - y²
`swish`       x / (1 + exp(-beta x))                      true, for x and for beta
`maxout`      the largest of several features             to the largest; ties share equally
============  ==========================================  =================================

`nnlab.ops.estimators.ste_heaviside` has `hardlim`'s value, and a gradient to learn by. Leaky ReLU,
ELU and SiLU, which is Swish with a beta of 1, are `jax.nn.leaky_relu`, `elu` and `silu`.

References:
    Demuth et al., Neural Network Design, chapter 2, and MATLAB's toolbox for the old names.
    Ramachandran et al., Searching for activation functions, 2017,
    https://arxiv.org/abs/1710.05941, for Swish.
    Goodfellow et al., Maxout networks, ICML 2013, https://arxiv.org/abs/1302.4389, section 3.
"""

import jax
import jax.numpy as jnp

from nnlab.errors import InputError


def purelin(x: jax.Array) -> jax.Array:
    """Return x itself."""
    return x


def hardlim(x: jax.Array) -> jax.Array:
    """Return 1 where x is 0 or more, else 0, in the dtype of x. A NaN stays a NaN."""
    return jnp.where(jnp.isnan(x), x, jnp.heaviside(jax.lax.stop_gradient(x), 1))


def logsig(x: jax.Array) -> jax.Array:
    """Return 1 / (1 + exp(-x)), between 0 and 1."""
    return jax.nn.sigmoid(x)


def tansig(x: jax.Array) -> jax.Array:
    """Return 2 / (1 + exp(-2 x)) - 1, the hyperbolic tangent, between -1 and 1."""
    return jnp.tanh(x)


def swish(x: jax.Array, beta: jax.Array | float) -> jax.Array:
    """Return x / (1 + exp(-beta x)), which goes from x / 2 at a beta of 0 towards ReLU.

    Args:
        x: [..., features], floating.
        beta: scalar or [features].

    Returns:
        Shape of `x`, and its dtype if beta is no wider.
    """
    return x * jax.nn.sigmoid(beta * x)


def maxout(x: jax.Array, pieces: int) -> jax.Array:
    """Return the largest of each `pieces` consecutive features.

    Args:
        x: [..., features · pieces], from a dense layer or a convolution.
        pieces: at least 1.

    Returns:
        [..., features], dtype of `x`.

    Raises:
        ValueError: `pieces` does not divide the features of `x`.
    """
    if x.ndim < 1 or pieces < 1 or x.shape[-1] % pieces:
        raise InputError(
            f"maxout needs pieces that divide the last axis of {x.shape}, not {pieces}."
        )
    return x.reshape(*x.shape[:-1], x.shape[-1] // pieces, pieces).max(-1)
