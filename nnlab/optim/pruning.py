r"""Pruning by magnitude while a network trains, on a schedule.

.. math:: s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (t_1 - t_0))^3, \quad t_0 \le t \le t_1    (1)

is the part of the weights that is pruned at step t: s_i at t_0 and s_f from t_1 on, fast at first,
while there is much to spare. Which weights these are is decided anew every so many steps, by the
magnitudes that the update leads to; in between, and for good where s_t does not fall, a pruned
weight is 0 and stays so.

References:
    Zhu & Gupta, To prune, or not to prune, 2017, https://arxiv.org/abs/1710.01878, eq. 1.
    Zhou et al., Learning N:M fine-grained structured sparse neural networks from scratch,
    ICLR 2021, https://arxiv.org/abs/2102.04010, for `decay_pruned`.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from nnlab.errors import InputError
from nnlab.ops.sparse import check_pattern, magnitude_mask, n_m_mask
from nnlab.optim.freezing import leaf_name
from nnlab.optim.values import check_number


def cubic_sparsity(final: float, begin: int, end: int, initial: float = 0.0) -> optax.Schedule:
    """Return the schedule (1); before step `begin` nothing is pruned.

    Raises:
        InputError: not 0 <= initial <= final < 1, or not 0 <= begin < end.
    """
    if not 0 <= initial <= final < 1:
        raise InputError(
            f"sparsities must be ascending and from 0 to below 1, not {initial} and {final}."
        )
    if not 0 <= begin < end:
        raise InputError(f"a schedule needs steps 0 <= begin < end, not {begin} and {end}.")

    def sparsity(step):
        left = 1 - jnp.clip((step - begin) / (end - begin), 0, 1)
        return jnp.where(step < begin, 0.0, final + (initial - final) * left**3)  # (1)

    return sparsity


class PruneState(NamedTuple):
    """The number of updates, int32 scalar, and what is kept, bool, shaped like the parameters."""

    count: jax.Array
    masks: Any


def prune(
    schedule: optax.ScalarOrSchedule,
    every: int = 1,
    scope: Literal["layer", "global"] = "layer",
) -> optax.GradientTransformation:
    """Make updates that set pruned weights to 0; last in a chain.

        pruning = optax.masked(prune(cubic_sparsity(0.9, 100, 900), every=10), kernel_mask)
        optimizer = optax.chain(adder_recipe(steps), pruning)

    Args:
        schedule: the part to prune at each step, rounded to whole weights, such as
            `cubic_sparsity`, or one number.
        every: steps between decisions, which are made at multiples of it.
        scope: whether the part is taken of each leaf or of all leaves together.

    Raises:
        InputError: `every` is not a positive integer, `scope` is another word, or `schedule` a
            number that is not from 0 to below 1.
        ValueError: on `update`, the parameters are missing.
    """
    if not (isinstance(every, int) and every > 0):
        raise InputError(f"every must be a positive integer, not {every}.")
    if scope not in ("layer", "global"):
        raise InputError(f"scope must be layer or global, not {scope}.")
    check_number("the part to prune", schedule, below=1)

    def init(params):
        masks = jax.tree.map(lambda p: jnp.ones(p.shape, bool), params)
        return PruneState(jnp.zeros((), jnp.int32), masks)

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("prune needs the parameters: update(updates, state, params).")
        weights = jax.tree.map(
            lambda p, u, kept: jnp.where(kept, p + u, 0), params, updates, state.masks
        )
        part = schedule(state.count) if callable(schedule) else schedule
        masks = jax.lax.cond(
            state.count % every == 0,
            lambda: _masks(weights, part, scope),
            lambda: state.masks,
        )
        updates = jax.tree.map(
            lambda kept, p, u: jnp.where(kept, u, -p).astype(p.dtype), masks, params, updates
        )
        return updates, PruneState(jnp.asarray(optax.safe_increment(state.count)), masks)

    return optax.GradientTransformation(init, update)


def decay_pruned(n: int = 2, m: int = 4, decay: float = 2e-4) -> optax.GradientTransformation:
    """Add decay · w to the gradients of weights that the pattern n:m prunes (SR-STE); stateless.

    For layers of `nnlab.ops.sparse.n_m_sparse`; first in a chain, so that it is scaled as a
    gradient. In the paper it is part of the backward pass; here, of the averaged gradient.

    Raises:
        InputError: not 0 < n < m, or `decay` is negative or not finite.
        ValueError: on `update`, the parameters are missing.
    """
    check_pattern(n, m)
    check_number("decay", decay)

    def update(updates, params):
        if params is None:
            raise ValueError("decay_pruned needs the parameters: update(updates, state, params).")
        return jax.tree.map(
            lambda g, w: g + decay * jnp.where(n_m_mask(w, n, m), 0, w).astype(g.dtype),
            updates,
            params,
        )

    return optax.stateless(update)


def kernel_mask(params) -> Any:
    """Return True for each leaf that is a layer's weights, for `optax.masked`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: leaf_name(path).endswith("kernel"), params
    )


def _masks(weights: Any, sparsity: ArrayLike, scope: str) -> Any:
    if scope == "layer":
        return jax.tree.map(lambda w: magnitude_mask(w, sparsity), weights)
    flat, unflatten = ravel_pytree(weights)
    kept = magnitude_mask(flat, sparsity)
    return jax.tree.map(lambda m: m > 0, unflatten(kept.astype(flat.dtype)))
