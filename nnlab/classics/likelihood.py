r"""What a restricted Boltzmann machine of a few units is, exactly, and of many, nearly.

With few units in one of its layers the partition function is a sum that can be taken,

.. math:: Z = \sum_v e^{-F(v)} = \sum_h e^{-F'(h)}                                        (1)

with it the log-likelihood of data, -F(v) - log Z, and its gradient. So can the mean gradient of
contrastive divergence: k steps of Gibbs sampling are a matrix over all visible states,

.. math:: T(v' | v) = \sum_h p(v' | h) \, p(h | v)                                        (2)

and CD-k compares data p with p T^k in place of the model. It is biased by what k steps leave.

With many units annealed importance sampling goes from a machine without weights, whose Z is known,
to the one in question in small steps beta,

.. math:: p_\beta(v, h) \propto \exp\big(((1 - \beta) a + \beta b)^\top v
          + \beta (c^\top h + v^\top W h)\big)                                            (3)

and averages, over chains that follow, the product of ratios of unnormalised probabilities. Its mean
is Z / Z_0, without bias, so that log Z is on average too small rather than too large, and the
log-likelihood too large.

References:
    Hinton, Training products of experts by minimizing contrastive divergence, 2002, for (2).
    Salakhutdinov & Murray, On the quantitative analysis of deep belief networks, ICML 2008, for
    (3). MacKay, Information theory, inference, and learning algorithms, 2003, for bars and stripes.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nnlab.classics.rbm import (
    RBM,
    difference,
    free_energy,
    hidden_probabilities,
    sample,
    visible_probabilities,
)
from nnlab.data.batches import check_shape, shared_size
from nnlab.errors import InputError, check_count
from nnlab.ops.keys import check_key

MOST = 20  # units of a layer whose states are listed


def every_state(units: int) -> jax.Array:
    """Return all states of some bits, [2^units, units], float32, counting up.

    Raises:
        InputError: there are no units, or more than 20.
    """
    check_count("units", units)
    if units > MOST:
        raise InputError(f"{units} units have too many states to list; expected at most {MOST}.")
    numbers = jnp.arange(2**units)[:, None] >> jnp.arange(units)[::-1]
    return (numbers & 1).astype(jnp.float32)


def bars_and_stripes(size: int) -> np.ndarray:
    """Return the pictures of whole rows or whole columns, [2^(size + 1) - 2, size^2], float32.

    All white and all black are among them once each: 6, 14 and 30 pictures for sizes 2, 3 and 4.

    Raises:
        InputError: the size is below 1, or above 20.
    """
    rows = np.asarray(every_state(size))
    bars = np.repeat(rows[:, :, None], size, axis=2)
    stripes = bars.transpose(0, 2, 1)[1:-1]  # the first and the last are bars too
    return np.concatenate([bars, stripes]).reshape(-1, size * size)


def log_partition(rbm: RBM) -> jax.Array:
    """Return log Z by (1), [], over all states of the smaller layer.

    Raises:
        InputError: both layers have more than 20 units.
    """
    if len(rbm.hidden) < len(rbm.visible):  # the same machine, upside down
        rbm = RBM(rbm.weights.T, rbm.hidden, rbm.visible)
    return jax.nn.logsumexp(-free_energy(rbm, every_state(len(rbm.visible))))


def log_likelihood(rbm: RBM, visible: jax.Array, log_z: jax.Array | None = None) -> jax.Array:
    """Return the log-likelihood of states [..., visible] in nats, [...].

    Args:
        rbm: the machine.
        visible: states, 0 or 1.
        log_z: its log Z, by default that of `log_partition`.

    Raises:
        InputError: the states do not fit the machine, or it is too large for `log_partition`.
    """
    return -free_energy(rbm, visible) - (log_partition(rbm) if log_z is None else log_z)


def expected_gradient(rbm: RBM, visible: jax.Array, steps: int | None = None) -> RBM:
    """Return the mean of the gradient of CD-k over all that it could draw.

    Args:
        rbm: the machine.
        visible: data, [examples, visible], 0 or 1.
        steps: k; None is the gradient of the mean log-likelihood itself.

    Raises:
        InputError: the states do not fit the machine or are none, it has more than 20 units in a
            layer, or there are no steps.
    """
    shared_size(visible)
    check_shape("visible states", visible, (len(visible), len(rbm.visible)))
    states = every_state(len(rbm.visible))
    if steps is None:
        model = jax.nn.softmax(-free_energy(rbm, states))
    else:
        check_count("steps", steps)
        places = 2.0 ** jnp.arange(len(rbm.visible))[::-1]
        numbers = (visible @ places).astype(jnp.int32)
        model = jnp.zeros(len(states)).at[numbers].add(1 / len(visible))
        up = _joint(hidden_probabilities(rbm, states), every_state(len(rbm.hidden)))
        down = _joint(visible_probabilities(rbm, every_state(len(rbm.hidden))), states)
        for _ in range(steps):
            model = model @ up @ down
    data = _weighted(rbm, visible, jnp.full(len(visible), 1 / len(visible)))
    return difference(data, _weighted(rbm, states, model))


def _joint(probabilities: jax.Array, states: jax.Array) -> jax.Array:
    """Return the probability of each state, [cases, states], of independent bits [cases, bits]."""
    logs, rest = (  # of 0 as well: an infinity times a bit of 0 is no number
        jnp.maximum(log, -1e30) for log in (jnp.log(probabilities), jnp.log1p(-probabilities))
    )
    return jnp.exp(logs @ states.T + rest @ (1 - states).T)


def _weighted(rbm: RBM, visible: jax.Array, weights: jax.Array) -> RBM:
    hidden = hidden_probabilities(rbm, visible)
    weighted = weights[:, None] * visible
    return RBM(weighted.T @ hidden, weighted.sum(0), weights @ hidden)


def annealed_log_partition(
    key: jax.Array, rbm: RBM, base: jax.Array, *, chains: int = 100, steps: int = 1000
) -> tuple[jax.Array, jax.Array]:
    """Estimate log Z by annealed importance sampling along (3).

    Args:
        key: draws the chains.
        rbm: the machine.
        base: a, biases of the machine without weights, [visible], such as the data's log-odds.
        chains: how many chains are averaged.
        steps: values of beta, evenly from 0 to 1.

    Returns:
        log Z, and the standard deviation of the chains' mean in units of that mean, both [].

    Raises:
        InputError: a number is below 1, or `base` does not fit the machine.
    """
    check_key(key)
    check_count("chains", chains)
    check_count("steps", steps)
    if np.shape(base) != rbm.visible.shape:
        given, expected = list(np.shape(base)), list(rbm.visible.shape)
        raise InputError(f"base has shape {given}, expected {expected}.")
    base = jnp.asarray(base, rbm.visible.dtype)

    def log_share(beta, visible, fields):  # of (3), summed over h, without its constant
        biases = (1 - beta) * base + beta * rbm.visible
        return visible @ biases + jnp.sum(jax.nn.softplus(beta * fields), axis=-1)

    def step(number, carry):
        visible, logs = carry
        before, beta = (number - 1) / steps, number / steps
        fields = rbm.hidden + visible @ rbm.weights
        logs += log_share(beta, visible, fields) - log_share(before, visible, fields)
        up, down = jax.random.split(jax.random.fold_in(key, number))
        hidden = sample(up, jax.nn.sigmoid(beta * fields))
        fields = (1 - beta) * base + beta * (rbm.visible + hidden @ rbm.weights.T)
        return sample(down, jax.nn.sigmoid(fields)), logs

    shares = jnp.broadcast_to(jax.nn.sigmoid(base), (chains, len(base)))
    first = sample(jax.random.fold_in(key, 0), shares)
    _, logs = lax.fori_loop(1, steps + 1, step, (first, jnp.zeros(chains)))
    log_base = jnp.sum(jax.nn.softplus(base)) + len(rbm.hidden) * jnp.log(2.0)
    ratio = jax.nn.logsumexp(logs) - jnp.log(chains)
    return log_base + ratio, jnp.std(jnp.exp(logs - ratio)) / jnp.sqrt(chains)
