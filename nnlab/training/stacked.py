"""Several trainings in one compiled program: states that differ in their seed or in a number.

    states = stack_states([init(key, model, optimizer, inputs) for key in keys])
    epoch = over_states(train_epoch(train_step(model, optimizer), batch_size))
    states, metrics = epoch(states, data)  # each with a leading axis of states

What differs has to be in the state: the seed is, as are hyperparameters under
`optax.inject_hyperparams`.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.data.batches import shared_size
from nnlab.errors import InputError


def stack_states(states: Sequence[Any]) -> Any:
    """Return states of one structure as one, each array [states, ...].

    Raises:
        InputError: there is no state, or they differ in structure, shapes or dtypes.
    """
    if not states:
        raise InputError("0 states were given to stack, expected one or more.")
    first, structure = jax.tree_util.tree_flatten_with_path(states[0])
    for number, state in enumerate(states[1:], 1):
        leaves, other = jax.tree.flatten(state)
        if other != structure:
            raise InputError(f"state {number} has another structure than state 0.")
        for (path, leaf), here in zip(first, leaves, strict=True):
            if (leaf.shape, leaf.dtype) != (here.shape, here.dtype):
                raise InputError(
                    f"{jax.tree_util.keystr(path)[1:]} is {here.dtype}{list(here.shape)} in state"
                    f" {number} and {leaf.dtype}{list(leaf.shape)} in state 0."
                )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def unstack_states(states: Any) -> list[Any]:
    """Return the single states of `stack_states`.

    Raises:
        InputError: the arrays differ in their number of states.
    """
    return [jax.tree.map(operator.itemgetter(i), states) for i in range(shared_size(states))]


def over_states(
    function: Callable[..., Any], how: Literal["loop", "vmap"] | None = None
) -> Callable[..., Any]:
    """Return `function(state, *args)` for stacked states, in one compiled program.

    Args:
        function: pure, such as a step, an epoch (`train_epoch`, `train_steps`) or an evaluation.
        how: "loop" takes the states one after the other (`jax.lax.map`), "vmap" all at once
            (`jax.vmap`), which fills a device that one small network leaves idle and takes the
            memory of all. By default a loop on a CPU, and `vmap` elsewhere.

    Returns:
        `mapped(states, *args)`. States and what it returns have a leading axis of states; `args`
        are shared. Each state has its own order of examples, and ends by itself where a number is
        not finite. A loop gives the bits of single trainings as far as the compiler compiles both
        alike; `vmap` sums in another order.

    Raises:
        InputError: `how` is none of these; or, when it is called, the arrays of the states differ
            in their number of states.
    """
    if how not in (None, "loop", "vmap"):
        raise InputError(f"how must be loop or vmap, not {how}.")

    @jax.jit
    def program(states: Any, *args: Any) -> Any:
        if how == "loop" or (how is None and jax.default_backend() == "cpu"):
            return lax.map(lambda state: function(state, *args), states)
        return jax.vmap(lambda state: function(state, *args))(states)

    check = getattr(function, "check", None)

    def mapped(states: Any, *args: Any) -> Any:
        shared_size(states)
        if check is not None:
            check(jax.tree.map(operator.itemgetter(0), states), *args)
        return program(states, *args)

    return mapped
