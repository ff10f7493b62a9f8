"""Transfer learning: a fresh state with the arrays of a trained network, except replaced layers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nnlab.errors import InputError
from nnlab.optim.freezing import path_name
from nnlab.training.steps import State


def transfer(
    trained: Any,
    state: State,
    optimizer: optax.GradientTransformation,
    replace: Callable[[str], Any] | None = None,
) -> State:
    """Return the fresh `state` with the arrays of `trained` variables; a pure function.

        head = re.compile(r"(Dense_0|BatchNorm_1)/").match
        fresh = training.init(key, model, optimizer, images)
        state = training.transfer(trained, fresh, optimizer, replace=head)

    Args:
        trained: the collections "params" and, with BatchNorm, "batch_stats" of a model that equals
            the new one except for the replaced layers, from a checkpoint or `nnlab.files.borrow`.
        state: from `nnlab.training.init` for the new model. Step, key and replaced arrays are kept.
        optimizer: the optimiser of `state`, which starts afresh on the transferred parameters.
        replace: `replace(path)`, true for arrays that stay fresh, by paths such as "Dense_0/kernel"
            or "BatchNorm_1/mean"; by default every array is transferred.

    Returns:
        The state. Transferred arrays are copies in the dtypes of the fresh ones.

    Raises:
        InputError: an array that is not replaced is missing from `trained` or from the model, or
            differs in shape; or `replace` is given and matches no array.
    """
    fresh = {"params": state.params, "batch_stats": state.batch_stats}
    into, given = _by_path(fresh), _by_path(trained)
    replaced = {path for path in into | given if replace is not None and replace(path[1])}
    if replace is not None and not replaced & into.keys():
        raise InputError(
            "replace matches no array of the model, expected at least one of "
            f"{', '.join(sorted({name for _, name in into}))}."
        )
    for collection, name in sorted((into.keys() ^ given.keys()) - replaced):
        lacking = "trained variables" if (collection, name) in into else "model"
        raise InputError(
            f"the {lacking} lack{'' if lacking.endswith('s') else 's'} {name} of {collection}, "
            "expected the same layers in both except those that replace matches."
        )

    def take(path: Any, leaf: jax.Array) -> jax.Array:
        key = path[0].key, path_name(path[1:])
        if key in replaced:
            return leaf
        if given[key].shape != leaf.shape:
            raise InputError(
                f"{key[1]} has shape {list(given[key].shape)} in the trained variables, expected "
                f"{list(leaf.shape)} or a replace that matches it."
            )
        return jnp.array(given[key], leaf.dtype)  # a copy, as training reuses the state's memory

    taken = jax.tree_util.tree_map_with_path(take, fresh)
    params, stats = taken["params"], taken["batch_stats"]
    return state._replace(params=params, batch_stats=stats, opt_state=optimizer.init(params))


def _by_path(variables: Any) -> dict[tuple[str, str], Any]:
    leaves = jax.tree_util.tree_leaves_with_path(dict(variables))
    return {(path[0].key, path_name(path[1:])): leaf for path, leaf in leaves}
