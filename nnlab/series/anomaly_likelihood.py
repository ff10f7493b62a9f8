r"""The anomaly likelihood: how unusual recent prediction errors are among all that were seen.

With the mean :math:`\mu_s` of the last `short` errors, and the mean and standard deviation
:math:`\mu, \sigma` of about the last `long`,

.. math::
    z &= (\mu_s - \mu) / \sigma,                                                          (1) \\
    L &= 1 - Q(z), \qquad Q(z) = \tfrac{1}{2} \mathrm{erfc}(z / \sqrt{2}),                (2) \\
    S &= \min(1, \log Q(z) / \log 10^{-10}).                                              (3)

A series that is hard to predict has large errors all the time and a likelihood near 1/2. Where it
matters, L is crowded near 1, so thresholds are put on S: 0.5 for Q = 1e-5, 1 for 1e-10 and less.

Errors come one at a time: `update` is a pure function of a small state, for `jax.lax.scan`, under
`jax.vmap` or row by row. The long moments are those of blocks of `block` rows, combined by Chan's
formula, so that nothing is subtracted from a running sum and float32 suffices; the window is the
rows of the current block and of the long / block - 1 before it, long - block + 1 to long rows.

References:
    Lavin & Ahmad, Evaluating real-time anomaly detection algorithms, 2015,
    https://arxiv.org/abs/1510.03336, section III; Ahmad et al., Neurocomputing 2017, eqs. 3 to 6,
    whose window is of exactly the last rows. (3) is their log scale.
    Chan, Golub & LeVeque, Updating formulae and a pairwise algorithm for computing sample
    variances, 1979.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr

from nnlab.errors import InputError


class State(NamedTuple):
    """What is known of the errors so far.

    Attributes:
        rows: how many errors there were, int32.
        recent: the last ones [short], the newest at rows - 1 modulo short.
        count, mean, squares: for each block [long / block] the number of its errors, their mean,
            and the sum of their squared distances from it.
    """

    rows: jax.Array
    recent: jax.Array
    count: jax.Array
    mean: jax.Array
    squares: jax.Array


class Likelihood(NamedTuple):
    """Scalars: L of (2) and S of (3)."""

    likelihood: jax.Array
    score: jax.Array


def init(short: int = 10, long: int = 8000, block: int = 100) -> State:
    """Return the state before the first error.

    Raises:
        InputError: a length is below 1, or `long` is not a multiple of `block` and above `short`.
    """
    if min(short, block) < 1 or long % block or long <= short:
        raise InputError(
            f"short={short}, long={long}, block={block} were given; expected positive lengths, long"
            " a multiple of block and greater than short."
        )
    zeros = jnp.zeros(long // block, jnp.float32)
    recent = jnp.zeros(short, jnp.float32)
    return State(jnp.zeros((), jnp.int32), recent, zeros, zeros, zeros)


def update(
    state: State,
    error: jax.Array,
    *,
    block: int = 100,
    warm_up: int = 100,
    floor: float = 1e-6,
) -> tuple[State, Likelihood]:
    """Take in one error.

    Args:
        state: from `init` or the last call.
        error: float scalar, absolute or squared, since only its size counts.
        block: as given to `init`.
        warm_up: for how many first errors the likelihood is 1/2.
        floor: least standard deviation, for errors that are all the same.
    """
    blocks, short = state.count.size, state.recent.size
    place = state.rows // block % blocks
    fresh = state.rows % block == 0  # the oldest block makes room
    kept = jax.tree.map(
        lambda x: jnp.where(fresh & (jnp.arange(blocks) == place), 0.0, x),
        (state.count, state.mean, state.squares),
    )
    count, mean, squares = kept
    n, m, s = count[place] + 1, mean[place], squares[place]
    moved = m + (error - m) / n
    count = count.at[place].set(n)
    mean = mean.at[place].set(moved)
    squares = squares.at[place].set(s + (error - m) * (error - moved))
    recent = state.recent.at[state.rows % short].set(error)
    after = State(state.rows + 1, recent, count, mean, squares)

    total = count.sum()
    mu = (count * mean).sum() / total
    variance = (squares + count * jnp.square(mean - mu)).sum() / total  # Chan
    mu_short = recent.sum() / jnp.minimum(after.rows, short).astype(recent.dtype)
    z = (mu_short - mu) / jnp.maximum(jnp.sqrt(variance), floor)  # (1)
    z = jnp.where(after.rows > warm_up, z, 0.0)
    log_q = log_ndtr(-z)
    return after, Likelihood(-jnp.expm1(log_q), log_score(log_q))


def log_score(log_q: jax.Array) -> jax.Array:
    """Equation (3), from the natural logarithm of the tail's probability."""
    return jnp.minimum(1.0, log_q / math.log(1e-10))  # (3)


@functools.partial(jax.jit, static_argnames=("short", "long", "block", "warm_up"))
def of_series(
    errors: jax.Array, short: int = 10, long: int = 8000, block: int = 100, warm_up: int = 100
) -> Likelihood:
    """Compute L and S of each of the errors [..., rows]: `update` along the rows."""

    def one_series(row: jax.Array) -> Likelihood:
        take = functools.partial(update, block=block, warm_up=warm_up)
        return jax.lax.scan(take, init(short, long, block), row)[1]

    mapped = jnp.vectorize(one_series, signature="(n)->(n),(n)")
    return Likelihood(*mapped(jnp.asarray(errors, jnp.float32)))
