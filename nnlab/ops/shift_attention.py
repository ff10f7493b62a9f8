r"""The linear attention of ShiftAddViT, whose products are additions.

.. math:: \hat q = 1[\tilde q > \mathrm{mean}(\tilde q)], \qquad
          \hat k = 1[\tilde k > \mathrm{mean}(\tilde k)], \qquad
          \tilde q = q / \|q\|, \quad \tilde k = k / \|k\|                                    (1)

    u_t = \frac{v_t}{2} + \frac{1}{\pi} \sum_j \hat q_t \cdot \hat k_j\; v_j, \qquad
    y_t = \frac{u_t}{\|u_t\|} + \sum_{a=-4}^{4} d_a\, v_{t+a}                                 (2)

Norms are those of a token in a head; d is a filter along time for each head. Without a softmax
:math:`\hat k^\top v` comes first, a matrix of the head's size, and both products are sums of what
the bits choose. Its time grows with the number of tokens, not with its square.

====================  =============================  ==============
cotangent             rule                           potential
====================  =============================  ==============
of a normalised q, k  g 1[0 <= q <= 1]          (3)  clip(q, 0, 1)
====================  =============================  ==============

with g that of the bit; all else is differentiated as it is. The mean of (1) is that of all numbers
of a batch in the published code ("batch"), so that what a token becomes depends on what else there
is; by default it is the token's own in its head ("token"). Both see tokens after them: the
attention is one of encoders.

References:
    You et al., ShiftAddViT: Mixture of Multiplication Primitives Towards Efficient Vision
    Transformer, NeurIPS 2023, https://arxiv.org/abs/2306.06446, and its code (pvt_v2.py,
    `LinAngularAttention_binary`). You et al., Castling-ViT, CVPR 2023, for the terms of (2).
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.errors import InputError
from nnlab.ops.attention import head_products, heads_first
from nnlab.ops.products import signed_conv
from nnlab.ops.straight_through import straight_through

MeanOver = Literal["token", "batch"]


def shift_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    filters: jax.Array,
    *,
    mask: jax.Array | None = None,
    mean_over: MeanOver = "token",
) -> jax.Array:
    """Attend by bits of queries and keys (2), in time that grows with the number of tokens.

    Args:
        query, key, value: [batch, time, heads, size]; heads of key and value as in
            `jax.nn.dot_product_attention`.
        filters: d, [taps, heads], an odd number of taps.
        mask: which keys there are, booleans that broadcast to [batch, heads, 1, time].
        mean_over: what the mean of (1) is taken over.

    Returns:
        [batch, time, heads, size].

    Raises:
        InputError: shapes do not fit, or the mask depends on the query.
    """
    queries, keys, values = heads_first(query, key, value)
    if key.shape[1] != query.shape[1] or filters.shape[0] % 2 == 0:
        raise InputError(
            "this attention needs as many queries as keys and an odd number of taps, not "
            f"{query.shape[1]}, {key.shape[1]} and {filters.shape[0]}."
        )
    if mask is not None:
        if mask.ndim != 4 or mask.shape[2] != 1 or mask.dtype != jnp.bool_:
            raise InputError(
                "this attention's mask must be boolean and broadcast to [batch, heads, 1, time], "
                f"not {mask.dtype} of shape {mask.shape}: it sees all keys of a query or none."
            )
        values = jnp.where(mask.swapaxes(2, 3), values, jnp.zeros((), values.dtype))
    bits_of_query = _bits(_unit(queries, -1), -1, mean_over)
    bits_of_key = _bits(_unit(keys, 2), 2, mean_over)
    sums = head_products(signed_conv, bits_of_key, values)
    seen = head_products(signed_conv, bits_of_query, sums)
    unit = _unit(0.5 * values + (1 / math.pi) * seen, -1)
    return (unit + _along_time(values, filters)).swapaxes(1, 2)  # (2)


def _unit(x, axis):
    """Vectors of length 1; those of zeros stay zeros."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    square = jnp.sum(jnp.square(wide), axis=axis, keepdims=True)
    return (wide * lax.rsqrt(jnp.where(square > 0, square, 1))).astype(x.dtype)


def _bits(x, axis, mean_over):
    held = lax.stop_gradient(x)
    mean = held.mean() if mean_over == "batch" else held.mean(axis=axis, keepdims=True)
    moving = jnp.where((held >= 0) & (held <= 1), x, held)
    return straight_through((held > mean).astype(x.dtype), moving)  # (1), (3)


def _along_time(values, filters):
    batch, heads, time, size = values.shape
    x = values.transpose(0, 3, 2, 1).reshape(batch * size, time, heads)
    y = lax.conv_general_dilated(
        *(x, filters[:, None].astype(x.dtype), (1,), "SAME"),
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=heads,
    )
    return y.reshape(batch, size, time, heads).transpose(0, 3, 2, 1)
