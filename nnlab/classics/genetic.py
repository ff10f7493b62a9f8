r"""A genetic start: initial weights that a population has found before the first gradient step.

A genome is all weights of a network, in units of how far each array spreads in the first
population. Its fitness is the loss L that the network has with them, at once or after a few steps
of training. Of each generation the better half are parents; a child takes every number from one of
two parents and is mutated,

.. math:: c = m \odot a + (1 - m) \odot b + \sigma s \odot \varepsilon, \quad
          m_i \sim \mathrm{Bernoulli}(p), \; \varepsilon_i \sim N(0, 1)                (1)

with the spread s. The children replace their parents, and the best genome of all generations is the
start. What a search costs is its evaluations: a population of P costs P of them, and P more in each
generation. `random_restarts` spends as many on nothing but first draws, which is the least that a
genetic algorithm has to beat.

The algorithm is `evosax.algorithms.SimpleGA`.

References:
    Montana & Davis, Training feedforward neural networks using genetic algorithms, IJCAI 1989. Such
    et al., Deep neuroevolution, 2017, https://arxiv.org/abs/1712.06567, for parents and mutation.
    Lange, evosax: JAX-based evolution strategies, 2022, https://arxiv.org/abs/2212.04180.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.core import Tracer
from jax.flatten_util import ravel_pytree

from nnlab.data.batches import shared_size
from nnlab.errors import InputError, check_count, needs
from nnlab.ops.keys import check_key
from nnlab.optim.values import check_number
from nnlab.training.stacked import over_states

Params = Any
Loss = Callable[[Params], jax.Array]


class Found(NamedTuple):
    """What a search has found.

    Attributes:
        params: the best weights, a tree.
        losses: the least loss so far, after the first population and after each generation, or
            after each draw.
    """

    params: Params
    losses: jax.Array


def random_restarts(loss: Loss, population: Params) -> Found:
    """Return the best of a population, one evaluation a member.

    Args:
        loss: of one tree of weights, a scalar; never compared where it is NaN.
        population: a tree of arrays [members, ...], such as `jax.vmap` of an initialisation makes.

    Raises:
        InputError: the arrays differ in their number of members, or the loss is no scalar.
    """
    shared_size(population)
    losses = _evaluated(loss, population)
    best = jax.tree.map(lambda leaf: leaf[jnp.argmin(losses)], population)
    return Found(best, lax.cummin(losses))


def evolve(
    key: jax.Array,
    loss: Loss,
    population: Params,
    generations: int,
    *,
    mutation: optax.ScalarOrSchedule = 0.1,
    crossover: float = 0.5,
) -> Found:
    """Return the best of all generations by (1); members × (generations + 1) evaluations.

    A pure function, to be compiled or mapped over keys and populations. An array that is the same
    in all members, such as biases of 0, is taken to spread as the others do on average.

    Args:
        key: a random key.
        loss: as in `random_restarts`.
        population: the first one, of at least two members, as in `random_restarts`.
        generations: how many follow.
        mutation: sigma, in spreads, a number or a schedule over generations.
        crossover: p, the share of numbers that come from the first parent.

    Raises:
        InputError: there are no generations, fewer than two members, a negative `mutation`, or a
            `crossover` that is no share, the loss is no scalar, or weights are not floating.
        MissingPackageError: evosax is not installed.
    """
    with needs("classics"):
        from evosax.algorithms import SimpleGA
    check_key(key)
    check_count("generations", generations)
    members = shared_size(population)
    if members < 2:
        raise InputError(f"a population of {members} was given to evolve, expected 2 or more.")
    check_number("mutation", mutation)
    given = isinstance(crossover, Tracer) or np.issubdtype(np.asarray(crossover).dtype, np.number)
    if not given or (not isinstance(crossover, Tracer) and not 0 <= crossover <= 1):
        raise InputError(f"crossover must be a number from 0 to 1, not {crossover!r}.")
    for leaf in jax.tree.leaves(population):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):  # mutations would be cut off
            raise InputError(f"a population of {leaf.dtype} was given, expected floating weights.")
    one = jax.tree.map(lambda leaf: leaf[0], population)
    unravel = ravel_pytree(one)[1]
    spread = _spread(population, one)
    genomes = jax.vmap(lambda member: ravel_pytree(member)[0])(population) / spread

    def evaluated(genomes):
        return _evaluated(loss, jax.vmap(unravel)(genomes * spread))

    schedule: Any = mutation if callable(mutation) else lambda _: mutation
    algorithm = SimpleGA(members, np.zeros(spread.size, spread.dtype), std_schedule=schedule)
    # evosax takes a number from the second parent with its rate.
    options = algorithm.default_params.replace(crossover_rate=1 - crossover)
    state = algorithm.init(key, genomes, jnp.full(members, jnp.inf), options)

    def generation(state, number):  # the first population is number 0, so that all share one loss
        asked, told = jax.random.split(jax.random.fold_in(key, number))
        children, state = algorithm.ask(asked, state, options)
        living = jnp.where(number == 0, genomes, children)
        state, _ = algorithm.tell(told, living, evaluated(living), state, options)
        return state, state.best_fitness

    state, losses = lax.scan(generation, state, jnp.arange(generations + 1))
    return Found(unravel(state.best_solution * spread), losses)


def _evaluated(loss: Loss, population: Params) -> jax.Array:
    """Return the loss of each member, infinite where it is NaN."""
    losses = over_states(loss)(population)
    if losses.ndim != 1:
        raise InputError(f"the loss has shape {list(losses.shape[1:])}, expected a scalar [].")
    return jnp.where(jnp.isnan(losses), jnp.inf, losses)


def _spread(population: Params, one: Params) -> jax.Array:
    """Return for each number of a genome how far its array spreads over the members."""
    found = jax.tree.map(lambda leaf: jnp.sqrt(jnp.mean(jnp.var(leaf, axis=0))), population)
    spreads = jnp.stack(jax.tree.leaves(found))
    usual = jnp.sum(spreads) / jnp.maximum(jnp.sum(spreads > 0), 1)
    usual = jnp.where(usual > 0, usual, 1.0)
    each = jax.tree.map(lambda s, leaf: jnp.full_like(leaf, jnp.where(s > 0, s, usual)), found, one)
    return ravel_pytree(each)[0]
