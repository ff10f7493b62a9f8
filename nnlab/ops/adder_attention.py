r"""Adder attention: distances of queries to keys in place of their products.

.. math:: s_{tj} = -c \sum_i |q_{ti} - k_{ji}|, \qquad
          y_t = \sum_j \left(\mathrm{softmax}(s_t)_j + 1[j = t]\right) v_j                   (1)

Distances are alike for all pairs far from each other, and a softmax of them alone mixes all tokens
into nearly the same: the identity that is added to the map keeps its rank. The scale c is such that
scores of independent standard normal numbers have the variance 1, as :math:`h^{-1/2}` does for
products of h of them:

.. math:: c = \left(h\,(2 - 4 / \pi)\right)^{-1/2}                                           (2)

===========  ============================================  ================
cotangent    rule                                          potential
===========  ============================================  ================
of q         c sum_j g_tj clip(k_j - q_t, -1, 1)      (3)  -c huber_1(d)
of k         c sum_t g_tj clip(q_t - k_j, -1, 1)      (4)  -c huber_1(d)
===========  ============================================  ================

with d = q - k: both are the rule that AdderNet has for its inputs, since both are inputs here. The
product with the values multiplies. The paper has no public code; (1) is what its abstract says,
and (2) to (4) are choices of this kit.

References:
    Shu et al., Adder Attention for Vision Transformer, NeurIPS 2021.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.kernels import adder as kernels
from nnlab.kernels.derivatives import reverse_rule
from nnlab.kernels.window import POINT
from nnlab.ops.attention import Window, heads_first, masked_softmax, pairs_allowed


def adder_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    mask: jax.Array | None = None,
    is_causal: bool = False,
    local_window_size: Window = None,
    scale: float | None = None,
    identity: bool = True,
) -> jax.Array:
    """Attend by negative L1 distances (1).

    Args:
        query, key, value, mask, is_causal, local_window_size: see `jax.nn.dot_product_attention`,
            whose result has this shape. Where there are as many queries as keys, token t is the
            key t; else, as with a cache of keys, it is the last key that the query sees.
        scale: c; by default (2).
        identity: whether to add the identity to the map.

    Raises:
        InputError: see `nnlab.ops.attention.heads_first`.
    """
    allowed = pairs_allowed(query, key, mask, is_causal, local_window_size)
    queries, keys, values = heads_first(query, key, value)
    if scale is None:
        scale = 1 / math.sqrt(query.shape[-1] * (2 - 4 / math.pi))  # (2)
    scores = scale * jax.vmap(jax.vmap(_distances))(queries, keys)
    seen = masked_softmax(scores, allowed)
    if identity:
        seen = seen + _own(query.shape[1], key.shape[1], allowed).astype(seen.dtype)  # (1)
    return jnp.einsum("bntj,bnjh->btnh", seen, values)


def _own(time: int, keys: int, allowed: jax.Array | None) -> jax.Array:
    """Whether a key is the query's own token, booleans that broadcast to [.., time, keys]."""
    row, column = (lax.broadcasted_iota(jnp.int32, (time, keys), axis) for axis in (0, 1))
    if time == keys:
        return (row == column)[None, None]
    seen = jnp.ones((1, 1, time, keys), bool) if allowed is None else allowed
    return column == jnp.max(jnp.where(seen, column, -1), axis=-1, keepdims=True)


@reverse_rule
def _distances(queries: jax.Array, keys: jax.Array) -> jax.Array:
    """Negative distances [time, keys] of [time, size] and [size, keys]."""
    x, w = queries[:, None, None], keys[None, None]
    return kernels.adder_conv(x, w, window=POINT)[:, 0, 0]


def _distances_fwd(queries, keys):
    return _distances(queries, keys), (queries, keys)


def _distances_bwd(residuals, g):
    queries, keys = residuals

    def rule(g, x, w):
        g, x, w = g[:, None, None], x[:, None, None], w[None, None]
        return kernels.adder_conv_input_gradient(g, x, w, rule="clip", window=POINT)[:, 0, 0]

    return rule(g, queries, keys), rule(g.T, keys.T, queries.T).T  # (3), (4)


_distances.defvjp(_distances_fwd, _distances_bwd)
