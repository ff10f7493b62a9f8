r"""Recurrent steps: from the products of input and state to the next state.

Every step takes products that are already made, :math:`x = W x_t + b` of the input and
:math:`s = U h_{t-1}` of the state, by whatever arithmetic. Of G gates both are [..., G n], gate by
gate in the order given.

Elman's network, one gate:

.. math:: h_t = \tanh(x + s)                                                                  (1)

Gated recurrent unit, gates r, z, n, whose last product of the state has a bias :math:`b_s`:

.. math::
    r &= \sigma(x_r + s_r), \qquad z = \sigma(x_z + s_z),                                     (2) \\
    h_t &= (1 - z) \tanh(x_n + r (s_n + b_s)) + z h_{t-1}                                     (3)

Long short-term memory, gates i, f, g, o, and with diagonal peepholes :math:`p_i, p_f, p_o`, through
which the gates see the cell's content, as Graves has it (without, all three are zero):

.. math::
    i &= \sigma(x_i + s_i + p_i c_{t-1}), \qquad f = \sigma(x_f + s_f + p_f c_{t-1}),         (4) \\
    c_t &= f c_{t-1} + i \tanh(x_g + s_g),                                                    (5) \\
    o &= \sigma(x_o + s_o + p_o c_t), \qquad h_t = o \tanh(\mathrm{norm}(c_t))                (6)

where norm is the identity, or layer normalisation in a normalised LSTM.

References:
    Elman, Finding structure in time, 1990, (1); Cho et al., 2014, https://arxiv.org/abs/1406.1078,
    in the form of cuDNN and Flax, (2), (3); Hochreiter & Schmidhuber, 1997, with the forget gate of
    Gers et al., 2000; Graves, Generating sequences with recurrent neural networks, 2013,
    https://arxiv.org/abs/1308.0850, eqs. 7 to 11, (4) to (6); Ba et al., Layer normalization, 2016,
    https://arxiv.org/abs/1607.06450, eq. 22, the norm in (6).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Peepholes(NamedTuple):
    """Weights [n] through which input, forget and output gate see the cell."""

    input: jax.Array
    forget: jax.Array
    output: jax.Array


def simple_step(x: jax.Array, s: jax.Array) -> jax.Array:
    """The next state [..., n] of (1), of products [..., n]."""
    return jnp.tanh(x + s)  # (1)


def gru_step(h: jax.Array, x: jax.Array, s: jax.Array, bias: jax.Array) -> jax.Array:
    """The next state [..., n] of (3), of the last one, products [..., 3 n] and the bias [n]."""
    x_r, x_z, x_n = jnp.split(x, 3, axis=-1)
    s_r, s_z, s_n = jnp.split(s, 3, axis=-1)
    r, z = jax.nn.sigmoid(x_r + s_r), jax.nn.sigmoid(x_z + s_z)  # (2)
    bias = lax.broadcast_to_rank(bias, s_n.ndim)
    return (1 - z) * jnp.tanh(x_n + r * (s_n + bias)) + z * h  # (3)


def lstm_step(
    c: jax.Array,
    x: jax.Array,
    s: jax.Array,
    peepholes: Peepholes | None = None,
    norm: Callable[[jax.Array], jax.Array] = lambda c: c,
) -> tuple[jax.Array, jax.Array]:
    """Cell and state [..., n] of (5) and (6), of the last cell and products [..., 4 n]."""
    i, f, g, o = jnp.split(x + s, 4, axis=-1)
    if peepholes is not None:
        peepholes = Peepholes(*(lax.broadcast_to_rank(weights, c.ndim) for weights in peepholes))
        i, f = i + peepholes.input * c, f + peepholes.forget * c
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)  # (4), (5)
    if peepholes is not None:
        o = o + peepholes.output * c
    return c, jax.nn.sigmoid(o) * jnp.tanh(norm(c))  # (6)
