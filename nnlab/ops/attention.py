"""What attentions of other arithmetics share: heads, masks, and products of one head at a time.

An attention has the face of `jax.nn.dot_product_attention`:

    attention(query, key, value, mask=…, is_causal=…, local_window_size=…, scale=…)

of queries [batch, time, heads, head size], and keys and values [batch, keys, key heads, head size]
whose heads divide those of the queries: each serves as many neighbouring heads. It returns
[batch, time, heads, head size].
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.errors import InputError
from nnlab.ops.front import Product, over_rows

Window = int | tuple[int, int] | None


def heads_first(
    query: jax.Array, key: jax.Array, value: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return queries [batch, heads, time, size], keys [batch, heads, size, keys] and values.

    The values are [batch, heads, keys, size]; keys and values are repeated to as many heads as the
    queries have, and all are of one dtype.

    Raises:
        InputError: shapes do not fit.
    """
    shapes = f"{query.shape}, {key.shape} and {value.shape}"
    if not query.ndim == key.ndim == value.ndim == 4 or key.shape != value.shape:
        raise InputError(
            "an attention expects query [batch, time, heads, size], and key and value [batch, "
            f"keys, key heads, size], not shapes {shapes}."
        )
    (batch, _, heads, size), (*_, key_heads, _) = query.shape, key.shape
    if (batch, size) != (key.shape[0], key.shape[3]) or not key_heads or heads % key_heads:
        raise InputError(
            "an attention expects query, key and value of one batch and head size, and heads that "
            f"those of key divide, not shapes {shapes}."
        )
    dtype = jnp.result_type(query, key, value)

    def of_all(array):
        return jnp.repeat(array.astype(dtype), heads // key_heads, axis=2).transpose(0, 2, 1, 3)

    keys, values = of_all(key), of_all(value)
    return query.astype(dtype).transpose(0, 2, 1, 3), keys.swapaxes(2, 3), values


def pairs_allowed(
    query: jax.Array,
    key: jax.Array,
    mask: jax.Array | None,
    is_causal: bool,
    local_window_size: Window,
) -> jax.Array | None:
    """Return which queries see which keys, booleans that broadcast to [batch, heads, time, keys].

    None is everything. The arguments are those of `jax.nn.dot_product_attention`.

    Raises:
        InputError: the mask is not boolean of four axes.
    """
    if mask is not None and (mask.ndim != 4 or mask.dtype != jnp.bool_):
        raise InputError(
            "an attention's mask must be boolean and broadcast to [batch, heads, time, keys], not "
            f"{mask.dtype} of shape {mask.shape}."
        )
    shape = query.shape[1], key.shape[1]
    row, column = (lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
    seen = []
    if is_causal:
        seen.append(column <= row)
    if local_window_size is not None:
        both = local_window_size
        left, right = (both, both) if isinstance(both, int) else both
        seen.append((row - left <= column) & (column <= row + right))
    for each in seen:
        mask = each[None, None] if mask is None else mask & each[None, None]
    return mask


def factor_of(query: jax.Array, scale: float | None) -> float:
    """Return what scores are multiplied by: `scale`, or 1 by the root of the head size."""
    return 1 / math.sqrt(query.shape[-1]) if scale is None else scale


def masked_softmax(scores: jax.Array, allowed: jax.Array | None) -> jax.Array:
    """Return the softmax over the last axis in float32 at least, of the dtype of `scores`."""
    wide = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    if allowed is not None:
        wide = jnp.where(allowed, wide, -0.7 * jnp.finfo(wide.dtype).max)
    return jax.nn.softmax(wide, axis=-1).astype(scores.dtype)


def head_products(product: Product, x: jax.Array, w: jax.Array, **options: Any) -> jax.Array:
    """Apply a dense `product` to x [batch, heads, rows, in] and w [batch, heads, in, columns].

    Returns:
        [batch, heads, rows, columns].
    """

    def of_head(x, w):
        return over_rows(lambda x, w: product(x, w, **options), x, w)

    return jax.vmap(jax.vmap(of_head))(x, w)
