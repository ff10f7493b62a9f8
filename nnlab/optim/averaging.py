r"""An exponential moving average of the weights, for evaluation.

.. math:: a_t = \sum_{i=1}^t d^{t-i} w_i \Big/ \sum_{i=1}^t d^{t-i}                       (1)

over the weights w after each update, with the decay d. It is computed step by step:

.. math:: a_t = a_{t-1} + \frac{1 - d}{1 - d^t} (w_t - a_{t-1})                          (2)

The denominator is Adam's bias correction. Without it the average would begin at the initial weights
and keep a part d^t of them: with d = 0.999, over a third of an adder layer's weights, published as
drawn from N(0, 1), is still there after 1,000 steps. In (2) the first step forgets them.

`optax.ema` and `optax.measure_with_ema` average the updates that pass through them, not the weights
that these lead to; `optax.incremental_update`, which is (2) for a given factor, keeps no state.

References:
    Polyak & Juditsky, Acceleration of stochastic approximation by averaging, 1992.
    Kingma & Ba, Adam, ICLR 2015, https://arxiv.org/abs/1412.6980, section 7.2, for (1) and (2).
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from nnlab.errors import InputError
from nnlab.optim.freezing import fill, frozen_paths


class AverageWeightsState(NamedTuple):
    """The number of updates, int32 scalar, and the average, shaped like the parameters."""

    count: jax.Array
    average: Any


def average_weights(decay: float = 0.999) -> optax.GradientTransformation:
    """Keep the average (1) in the state and pass updates on; last in a chain.

        optimizer = optax.chain(adder_recipe(steps), average_weights(0.999))
        evaluate = evaluation(model, weights=lambda state: averaged_weights(state.opt_state))

    Put it after a partition, not in a part of it, so that it sees all weights, but inside
    `nnlab.optim.freeze`, because frozen weights need no average. The average is held in float32 or
    wider. Running statistics of BatchNorm are averages already, but of other weights: estimate
    them anew if the two differ much.

    Raises:
        InputError: `decay` is not between 0 and 1, both excluded.
    """
    traced = isinstance(decay, Tracer)  # a hyperparameter in a compiled state
    if not traced and not 0 < decay < 1:
        raise InputError(f"decay must be a number between 0 and 1, not {decay}.")

    def init(params):
        def copy(p):  # another buffer than the parameter's, or a state could not be donated
            return jnp.array(p, jnp.promote_types(p.dtype, jnp.float32), copy=True)

        return AverageWeightsState(jnp.zeros((), jnp.int32), jax.tree.map(copy, params))

    def update(updates, state, params=None):
        if params is None:
            raise ValueError(
                "average_weights needs the parameters: update(updates, state, params)."
            )
        count = jnp.asarray(optax.safe_increment(state.count))
        log = jnp.log(decay) if traced else math.log(decay)
        share = (1 - decay) / -jnp.expm1(count.astype(float) * log)
        weights = optax.apply_updates(params, updates)
        average = optax.incremental_update(weights, state.average, share)  # (2)
        return updates, AverageWeightsState(count, average)

    return optax.GradientTransformation(init, update)


def averaged_weights(opt_state: optax.OptState, params: Any = None) -> Any:
    """Return the average that `average_weights` keeps somewhere in `opt_state`.

    Before the first update it is the initial weights.

    Args:
        opt_state: the state of the optimiser.
        params: the parameters; needed if `nnlab.optim.freeze` holds some, which are then returned
            as they are.

    Raises:
        InputError: the state holds no average, or several, or one of only some parameters.
    """
    name = AverageWeightsState.__name__
    found = optax.tree.get_all_with_path(opt_state, name)
    if len(found) != 1:
        raise InputError(f"The state of the optimiser holds {len(found)} averages; expected one.")
    average = found[0][1].average
    if not frozen_paths(opt_state):
        return average
    if params is None:
        raise InputError(
            "the average lacks the frozen parameters; expected averaged_weights(opt_state, params)."
        )
    return fill(average, params)
