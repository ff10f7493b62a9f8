r"""Which weights to keep, and products of the weights that are left.

=========================  ==============================================================
mask                       keeps
=========================  ==============================================================
magnitude_mask(w, s)       all but the round(s size) smallest magnitudes              (1)
n_m_mask(w, n, m, axis)    the n largest magnitudes of every m neighbours on an axis  (2)
=========================  ==============================================================

Of equal magnitudes the first is pruned first, so that the numbers in (1) and (2) are exact. Masks
are constants to a gradient.

`n_m_sparse(product)` is itself a product, y = product(x, m w) with the mask m of (2) along the
inputs, as hardware that skips zeros wants it (2:4 on GPUs). Its cotangents are those of the product
at m w. That of w reaches pruned weights as well, which may therefore come back: straight-through,
with the product's own potentials. SR-STE's decay of pruned weights is `nnlab.optim.decay_pruned`.

In an adder layer a zero weight is not absent: its term is -|x|, which costs one addition where
another costs two. `nnlab.costs.sparse_counts` counts it so.

References:
    Han et al., Learning both weights and connections, NeurIPS 2015,
    https://arxiv.org/abs/1506.02626, for (1). Zhou et al., Learning N:M fine-grained structured
    sparse neural networks from scratch, ICLR 2021, https://arxiv.org/abs/2102.04010.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from nnlab.errors import InputError
from nnlab.ops.convolution import conv
from nnlab.ops.products import Product
from nnlab.ops.straight_through import stored_in, straight_through


def magnitude_mask(w: jax.Array, sparsity: ArrayLike) -> jax.Array:
    """The mask (1).

    Args:
        w: any shape, floating.
        sparsity: part of the weights to prune, from 0 to 1; may be traced.

    Returns:
        bool, of the shape of `w`, true where a weight is kept.
    """
    order = jnp.argsort(jnp.abs(lax.stop_gradient(w)).ravel(), stable=True)
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(w.size))
    return rank.reshape(w.shape) >= jnp.round(jnp.asarray(sparsity) * w.size).astype(rank.dtype)


def n_m_mask(w: jax.Array, n: int, m: int, axis: int = -2) -> jax.Array:
    """The mask (2).

    Args:
        w: floating; the default axis is that of the inputs of a kernel [..., in, out].
        n, m: kept, and of how many neighbours. A last group of fewer keeps n as well.
        axis: along which neighbours are counted.

    Returns:
        bool, of the shape of `w`, true where a weight is kept.

    Raises:
        InputError: not 0 < n < m.
    """
    check_pattern(n, m)
    rows = jnp.moveaxis(jnp.abs(lax.stop_gradient(w)), axis, -1)
    missing = -rows.shape[-1] % m
    groups = jnp.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, missing)], constant_values=-1.0)
    groups = groups.reshape(*rows.shape[:-1], -1, m)
    one, other = groups[..., :, None], groups[..., None, :]
    before = jnp.tri(m, k=-1, dtype=bool)  # of equal ones the first is the smaller
    before = lax.broadcast_to_rank(before, one.ndim)
    rank = ((other < one) | ((other == one) & before)).sum(-1)
    kept = (rank >= m - n).reshape(*rows.shape[:-1], -1)[..., : rows.shape[-1]]
    return jnp.moveaxis(kept, -1, axis)


def n_m_bits(n: int, m: int, bits: int = 32) -> int:
    """Return the bits at rest of a weight, rounded up; a kept one takes `bits` and its place in m.

    2:4 in float32 is (2 32 + 2 2) / 4 = 17.

    Raises:
        InputError: not 0 < n < m.
    """
    check_pattern(n, m)
    return math.ceil(n * (bits + math.ceil(math.log2(m))) / m)


def n_m_sparse(product: Product = conv, n: int = 2, m: int = 4, *, bits: int = 32) -> Product:
    """Make `product` use only the weights that (2) keeps along their inputs; 2:4 by default.

    Args:
        product: `op(x, kernel, **options)`, as in `nnlab.ops.products`.
        n, m: kept, and of how many neighbours.
        bits: of a kept weight at rest.

    Raises:
        InputError: not 0 < n < m.
    """

    def masked(w):
        return jnp.where(n_m_mask(w, n, m), w, jnp.zeros((), w.dtype))

    store = stored_in(n_m_bits(n, m, bits), masked)

    def op(x: jax.Array, kernel: jax.Array, **options) -> jax.Array:
        kernel = straight_through(store(lax.stop_gradient(kernel)), kernel)
        return product(x, kernel, **options)

    return op


def check_pattern(n: int, m: int) -> None:
    """Raise `InputError` unless n and m are integers with 0 < n < m."""
    if not (isinstance(n, int) and isinstance(m, int) and 0 < n < m):
        raise InputError(f"a pattern n:m needs integers with 0 < n < m, not {n}:{m}.")
