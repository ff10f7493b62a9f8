r"""Hopfield networks: memories are minima of an energy, and recall runs downhill.

N units s of 1 or -1 remember patterns xi by Hebb's rule, and a unit takes the sign of its field:

.. math:: W = \frac1N \sum_\mu \xi^\mu \xi^{\mu\top}, \; W_{ii} = 0                     (1)

.. math:: s_i \leftarrow \operatorname{sgn}\Big(\sum_j W_{ij} s_j\Big)                   (2)

One unit after the other, each change lowers the energy

.. math:: E = -\tfrac12 s^\top W s                                                      (3)

so that the network comes to rest. All at once, it may end in a circle of two states. Not only
patterns are at rest: their negatives are, and mixtures such as
:math:`\operatorname{sgn}(\xi^1 + \xi^2 + \xi^3)`. Up to about 0.138 N random patterns are
remembered with few errors, and none of them beyond.

Patterns that resemble each other disturb each other under (1). The projection onto their span,
without its diagonal,

.. math:: W = X^+ X, \; W_{ii} = 0, \quad X \text{ of the rows } \xi^\mu                 (4)

keeps them where Hebb's rule fails, but is no sum that a synapse could learn by itself.

The modern network has patterns X [N, count] and states of real numbers. One step of

.. math:: \xi \leftarrow X \operatorname{softmax}(\beta X^\top \xi)                      (5)

lowers the energy

.. math::
    E = -\beta^{-1} \log \sum_\mu e^{\beta x_\mu^\top \xi} + \tfrac12 \xi^\top \xi
        + \beta^{-1} \log \text{count} + \tfrac12 \max_\mu \|x_\mu\|^2                  (6)

and is attention, with the state as the query and patterns as keys and values. On patterns and
states of ±1 its similarities may be L1 distances as well: \|xi - x\| sums to N - xi x.

References:
    Hopfield, Neural networks and physical systems with emergent collective computational abilities,
    PNAS 79, 1982. Amit, Gutfreund & Sompolinsky, Storing infinite numbers of patterns in a
    spin-glass model, Physical Review Letters 55, 1985, for the capacity. Personnaz, Guyon &
    Dreyfus, Information storage and retrieval in spin-glass like neural networks, Journal de
    Physique Lettres 46, 1985, for (4). Ramsauer et al., Hopfield networks is all you need, ICLR
    2021, https://arxiv.org/abs/2008.02217, for (5) and (6).
"""

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.data.batches import check_shape
from nnlab.errors import InputError, check_count
from nnlab.ops.keys import check_key


def remember(patterns: jax.Array) -> jax.Array:
    """Return the weights (1), [units, units], of patterns [count, units] of 1 and -1.

    Raises:
        InputError: the patterns are not [count, units].
    """
    _check_patterns(patterns)
    weights = patterns.T @ patterns / patterns.shape[1]
    return weights - jnp.diag(jnp.diag(weights))


def project(patterns: jax.Array) -> jax.Array:
    """Return the weights (4), [units, units], of patterns [count, units] of 1 and -1.

    Raises:
        InputError: the patterns are not [count, units].
    """
    _check_patterns(patterns)
    weights = jnp.linalg.pinv(patterns) @ patterns
    return weights - jnp.diag(jnp.diag(weights))


def energy(weights: jax.Array, state: jax.Array) -> jax.Array:
    """Return the energy (3) of states [..., units], [...].

    Raises:
        InputError: state and weights differ in their number of units.
    """
    _check_state(weights, state)
    return -jnp.einsum("...i,ij,...j->...", state, weights, state) / 2


def recall(
    key: jax.Array, weights: jax.Array, state: jax.Array, sweeps: int = 100
) -> tuple[jax.Array, jax.Array]:
    """Update one unit after the other by (2), in random order, until none changes.

    A unit whose field is 0 stays as it is.

    Args:
        key: of the orders, a new one each sweep.
        weights: [units, units].
        state: where to begin, [units], 1 or -1.
        sweeps: at most so many passes over all units.

    Returns:
        The state [units], and the number of sweeps, int32, of which the last changed nothing unless
        it is `sweeps`.

    Raises:
        InputError: state and weights differ in their number of units, or there are no sweeps.
    """
    check_key(key)
    check_count("sweeps", sweeps)
    _check_state(weights, state)

    def sweep(carry):
        before, _, done = carry
        order = jax.random.permutation(jax.random.fold_in(key, done), len(before))

        def one(state, unit):
            return state.at[unit].set(_sign(weights[unit] @ state, state[unit])), None

        after, _ = lax.scan(one, before, order)
        return after, jnp.any(after != before), done + 1

    first = (state, jnp.array(True), jnp.zeros((), jnp.int32))
    state, _, done = lax.while_loop(lambda c: c[1] & (c[2] < sweeps), sweep, first)
    return state, done


def recall_at_once(weights: jax.Array, state: jax.Array, steps: int) -> jax.Array:
    """Update all units at once by (2), and return the states after each step, [steps, units].

    Raises:
        InputError: state and weights differ in their number of units, or there are no steps.
    """
    check_count("steps", steps)
    _check_state(weights, state)

    def step(state, _):
        state = _sign(weights @ state, state)
        return state, state

    return lax.scan(step, state, length=steps)[1]


def overlap(state: jax.Array, pattern: jax.Array) -> jax.Array:
    """Return the mean of the products of units, in [-1, 1]: 1 for the pattern itself."""
    return jnp.mean(state * pattern, axis=-1)


def attend(patterns: jax.Array, state: jax.Array, beta: float) -> jax.Array:
    """Update states of a modern network by (5), with `jax.nn.dot_product_attention`.

    Args:
        patterns: [count, units].
        state: [batch, units].
        beta: how sharply the nearest pattern is preferred.

    Returns:
        [batch, units].

    Raises:
        InputError: patterns are not [count, units], or states not [batch, units].
    """
    _check_patterns(patterns)
    check_shape("state", state, (len(state), patterns.shape[1]))
    memory = patterns[None, :, None]  # [1, count, heads, units]
    queries = state[None, :, None]
    return jax.nn.dot_product_attention(queries, memory, memory, scale=beta)[0, :, 0]


def modern_energy(patterns: jax.Array, state: jax.Array, beta: float) -> jax.Array:
    """Return the energy (6) of states [batch, units], [batch].

    Raises:
        InputError: as for `attend`.
    """
    _check_patterns(patterns)
    check_shape("state", state, (len(state), patterns.shape[1]))
    similar = jax.nn.logsumexp(beta * state @ patterns.T, axis=-1) / beta
    largest = jnp.max(jnp.sum(jnp.square(patterns), axis=-1))
    sizes = jnp.sum(jnp.square(state), axis=-1) + largest
    return -similar + sizes / 2 + jnp.log(len(patterns)) / beta


def _sign(field: jax.Array, state: jax.Array) -> jax.Array:
    return jnp.where(field == 0, state, jnp.sign(field))


def _check_patterns(patterns: jax.Array) -> None:
    if patterns.ndim != 2:
        raise InputError(f"patterns are {list(patterns.shape)}, expected [count, units].")


def _check_state(weights: jax.Array, state: jax.Array) -> None:
    units = state.shape[-1:] if state.ndim else ()
    check_shape("weights", weights, (*units, *units))
