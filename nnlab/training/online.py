"""Learning from a stream: every row is judged before it is learned from.

The metrics of a step are those before its update, so a `training.train_step` whose metrics keep an
entry for every row tells what the network made of rows that it had never seen. `learn_online` takes
such steps in order, block by block, and may be mapped with `jax.vmap` over many streams.
"""

from typing import Any

import jax
import jax.numpy as jnp

from nnlab.training.steps import Batch, State, Step


def learn_online(
    step: Step, state: State, blocks: Batch, learns: jax.Array
) -> tuple[State, dict[str, jax.Array]]:
    """Takes a step a block, in order.

    Args:
        step: of `training.train_step`; its metrics may be arrays.
        state: where to start.
        blocks: inputs and labels, each leaf [blocks, …].
        learns: bool [blocks]; of the others the state keeps what recurrent layers carry, and
            nothing else.

    Returns:
        The last state, and the metrics [blocks, …].
    """

    def take(state: State, given: Any) -> tuple[State, dict[str, jax.Array]]:
        batch, wanted = given
        after, metrics = step(state, batch)
        held = state._replace(carry=after.carry)
        return jax.tree.map(lambda new, old: _choose(wanted, new, old), after, held), metrics

    return jax.lax.scan(take, state, (blocks, learns))


def _choose(wanted: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.where(wanted, new, old)
