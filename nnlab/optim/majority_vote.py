r"""A vote of devices on the sign of each number of a gradient.

.. math:: v = \mathrm{sgn} \sum_{i=1}^{n} \mathrm{sgn}\,g_i                                  (1)

over the gradients g_i of n devices, of which each sends one bit a number and gets one back. Signs
are packed 32 in a word and cut in n slices. Device j gets slice j of everyone (all-to-all), counts
the votes in it, and sends the result to everyone (all-gather), so all devices have the same v.

One bit has no third value. A 0 counts as +1, as in `nnlab.ops.packed`: a weight whose gradient is
exactly 0 on most devices, such as one that nothing reaches, moves by the learning rate at every
step. A tie of an even number of devices goes to the vote of the device that counts it, another one
in each slice. If a tie were always +1, noise alone would move weights down: with two devices, half
of all votes on noise are ties.

The vote is on gradients. Signum's vote on momenta would need a momentum for each device; here
momentum, weight decay and rate follow the vote, the same for all:

    step = train_step(model, optax.sgd(1e-3), axis_name="data", combine=majority_vote)
    step = parallel.per_device(step, mesh)          # or parallel.pmapped(step)

References:
    Bernstein et al., signSGD, ICML 2018, https://arxiv.org/abs/1802.04434, for the vote; signSGD
    with Majority Vote, ICLR 2019, https://arxiv.org/abs/1810.05291, for the bits.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from nnlab.ops.packed import pack_signs

_PLACES = np.arange(32, dtype=np.uint32)  # of the signs in a word


def majority_vote(gradients: Any, axis_name: str) -> Any:
    """Return the vote (1) of all devices along `axis_name`; replaces `jax.lax.pmean`.

    Args:
        gradients: a pytree of floating arrays, each device's own, inside `jax.shard_map` or
            `jax.pmap`.
        axis_name: name of the mapped axis.

    Returns:
        The same tree of -1 and +1, the same on all devices to the bit. A leaf in which some device
        has a number that is not finite is NaN throughout, so that a step that checks for such
        numbers finds it; this sends one more number for each leaf.
    """
    flat, unravel = ravel_pytree(gradients)
    devices = lax.axis_size(axis_name)
    words = pack_signs(flat)
    words = jnp.pad(words, (0, -len(words) % devices)).reshape(devices, -1)
    slices = lax.all_to_all(words, axis_name, 0, 0)
    decided = _count(slices, slices[lax.axis_index(axis_name)])
    every = lax.all_gather(decided, axis_name, tiled=True, to="invarying")
    votes = unravel(jnp.where(_bits(every).ravel()[: flat.size], 1, -1).astype(flat.dtype))

    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients)])
    finite = iter(lax.pmin(finite.astype(jnp.int32), axis_name))
    return jax.tree.map(lambda vote: jnp.where(next(finite) == 1, vote, jnp.nan), votes)


def _count(slices: jax.Array, mine: jax.Array) -> jax.Array:
    """Count the votes [words] on the signs of all devices [devices, words]; ties as in `mine`."""
    margin = 2 * _bits(slices).sum(axis=0, dtype=jnp.int32) - len(slices)  # (1)
    plus = jnp.where(margin == 0, _bits(mine), margin > 0)
    return jnp.sum(plus.astype(jnp.uint32) << _PLACES[None], axis=-1, dtype=jnp.uint32)


def _bits(words: jax.Array) -> jax.Array:
    """Unpack words [..., n] to booleans [..., n, 32], in the order of `pack_signs`."""
    places = lax.broadcast_to_rank(_PLACES, words.ndim + 1)
    return (words[..., None] >> places) & 1 == 1
