r"""How far a quantity leaves the range seen before, as a share of that range.

The excess of the mean q of the last `length` values over the lowest and highest such mean before is

.. math:: excess = \max(q - high, \; low - q) / (high - low),                             (1)

negative inside the range, and 0.05 for what HTM's detector calls a spatial anomaly of tolerance 5
%. Records are rare in a series that goes on as it was, about 2 / n at its n-th row whatever its
distribution is, so one threshold serves series of all kinds. The same measure serves values, means
of values (a level that shifts) and a network's prediction errors.

The range is that of the current block of `memory` rows and of the whole block before it, or of all
rows if `memory` is 0: what was extreme a long time ago is new again.

Values come one at a time: `update` is a pure function of a small state, for `jax.lax.scan`, under
`jax.vmap` or row by row.

References:
    SPATIAL_TOLERANCE in https://github.com/numenta/NAB, nab/detectors/numenta/numenta_detector.py,
    which looks at the value itself, above the range of the whole past.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nnlab.errors import InputError


class State(NamedTuple):
    """What is known of the values so far.

    Attributes:
        rows: how many values there were, int32.
        recent: the last values [length], the newest at rows - 1 modulo length.
        low, high: least and greatest mean in the current block.
        low_before, high_before: least and greatest mean in the block before.
    """

    rows: jax.Array
    recent: jax.Array
    low: jax.Array
    high: jax.Array
    low_before: jax.Array
    high_before: jax.Array


def init(length: int = 1) -> State:
    """Return the state before the first value.

    Raises:
        InputError: `length` is below 1.
    """
    if length < 1:
        raise InputError(f"length must be at least 1, not {length}.")
    low, high = jnp.array(jnp.inf), jnp.array(-jnp.inf)
    return State(jnp.zeros((), jnp.int32), jnp.zeros(length), low, high, low, high)


def update(state: State, value: jax.Array, *, memory: int = 5000) -> tuple[State, jax.Array]:
    """Take in one value, a float scalar; return its excess (1), 0 while the range is empty."""
    length = state.recent.size
    turn = (state.rows > 0) & (state.rows % memory == 0) if memory else jnp.array(False)
    low_before = jnp.where(turn, state.low, state.low_before)
    high_before = jnp.where(turn, state.high, state.high_before)
    low, high = jnp.where(turn, jnp.inf, state.low), jnp.where(turn, -jnp.inf, state.high)

    recent = state.recent.at[state.rows % length].set(value)
    mean = recent.sum() / jnp.minimum(state.rows + 1, length)
    least, most = jnp.minimum(low, low_before), jnp.maximum(high, high_before)
    span = most - least
    known = (state.rows > 0) & (span > 0)
    outside = jnp.maximum(mean - most, least - mean)
    excess = jnp.where(known, outside / jnp.where(known, span, 1.0), 0.0)  # (1)
    after = State(
        state.rows + 1,
        recent,
        jnp.minimum(low, mean),
        jnp.maximum(high, mean),
        low_before,
        high_before,
    )
    return after, excess


@functools.partial(jax.jit, static_argnames=("length", "memory"))
def of_series(values: jax.Array, length: int = 1, memory: int = 5000) -> jax.Array:
    """Compute the excess of each of the values [..., rows]: `update` along the rows."""

    def one_series(row: jax.Array) -> jax.Array:
        take = functools.partial(update, memory=memory)
        return jax.lax.scan(take, init(length), row)[1]

    return jnp.vectorize(one_series, signature="(n)->(n)")(jnp.asarray(values, jnp.float32))
