"""Freezing of parameters, chosen by their paths.

    head = re.compile(r"(Dense_0|BatchNorm_1)/").match
    optimizer = freeze(adder_recipe(steps), lambda path: not head(path))
    state = training.init(key, model, optimizer, images)
    step = training.train_step(model, optimizer)

A frozen parameter gets no update from the optimiser, weight decay included, and has no place in
its state. The structure of the state, not an array, says which parameters are frozen;
`nnlab.training.train_step` reads it there, computes no gradients for them, and keeps their bits
whatever surrounds `freeze` in a chain. Nothing is differentiated below the first layer that is
trained, and with all but the classifier frozen a step costs about as much as a forward pass.

BatchNorm's running statistics are not frozen, because in training BatchNorm normalises by the batch
in any case, and its statistics have to follow.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import serialization

from nnlab.errors import InputError


@jax.tree_util.register_static
class FrozenPaths(frozenset[str]):
    """Paths of frozen parameters; a pytree without arrays."""


# Flax writes nothing of the paths: the state that a file is read into has them.
serialization.register_serialization_state(FrozenPaths, lambda _: {}, lambda paths, _: paths)


class FreezeState(NamedTuple):
    """The frozen paths, and the state of the optimiser of all other parameters."""

    frozen: Any  # FrozenPaths
    inner: optax.OptState


def freeze(
    optimizer: optax.GradientTransformation, frozen: Callable[[str], Any]
) -> optax.GradientTransformation:
    """Apply `optimizer` to all parameters but the frozen ones, whose updates are 0.

    Args:
        optimizer: gets the other parameters alone; put an average of the weights inside it.
        frozen: returns whether a parameter is frozen, from its path such as "Dense_0/kernel".

    Raises:
        InputError: on `init`, none of the parameters is frozen or all are; on the update, the state
            is that of another optimiser.
    """

    def init(params):
        leaves = jax.tree_util.tree_leaves_with_path(params)
        if params and not leaves:  # `optax.tree.map_params` asks where parameters lie in the state
            return FreezeState(frozen, optimizer.init(params))  # a leaf stands for any paths
        paths = [path_name(path) for path, _ in leaves]
        held = FrozenPaths(path for path in paths if frozen(path))
        if len(held) in (0, len(paths)):
            raise InputError(
                f"{'all' if held else 'none'} of the {len(paths)} parameters are frozen, expected "
                f"some; their paths are {', '.join(paths[:3])}{' …' if len(paths) > 3 else ''}."
            )
        return FreezeState(held, optimizer.init(without(params, held)))

    def update(updates, state, params=None, **extra_args):
        if not isinstance(state, FreezeState):
            raise InputError(
                f"freeze got the state {type(state).__name__} of another optimizer, expected that "
                "of its own init."
            )
        some = None if params is None else without(params, state.frozen)
        passed, inner = optax.with_extra_args_support(optimizer).update(
            without(updates, state.frozen), state.inner, some, **extra_args
        )
        # To a parameter of -0, +0 would add up to +0.
        zeros = jax.tree.map(lambda u: jnp.full_like(u, -0.0), updates)
        return fill(passed, zeros), FreezeState(state.frozen, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def frozen_paths(opt_state: optax.OptState) -> frozenset[str]:
    """Return the paths of all parameters that `freeze` holds somewhere in an optimiser."""
    states = optax.tree.get_all_with_path(opt_state, FreezeState.__name__)
    return frozenset().union(*(state.frozen for _, state in states))


def path_name(path: jax.tree_util.KeyPath) -> str:
    """Return the path of a leaf as text, such as "Dense_0/kernel"."""
    return jax.tree_util.keystr(_unboxed(path), simple=True, separator="/")


def leaf_name(path: jax.tree_util.KeyPath) -> str:
    """Return the name that a leaf is known by: the last in its path, "" if there is none.

    Places in lists and tuples are no names.
    """
    names = [getattr(key, "key", getattr(key, "name", None)) for key in _unboxed(path)]
    return next((name for name in reversed(names) if isinstance(name, str)), "")


def _unboxed(path: jax.tree_util.KeyPath) -> jax.tree_util.KeyPath:
    """Leave out the "value" of a box such as `nn.Partitioned`, which `nnx.Optimizer` takes off."""
    boxed = len(path) > 1 and path[-1] == jax.tree_util.GetAttrKey("value")
    return path[:-1] if boxed else path


def without(tree: Any, paths: frozenset[str]) -> Any:
    """Replace the leaves at `paths` by an `optax.MaskedNode`, which holds no array."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: optax.MaskedNode() if path_name(path) in paths else leaf, tree
    )


def fill(tree: Any, others: Any) -> Any:
    """Fill the leaves that `without` took away from `tree` with those of `others`."""

    def missing(leaf: Any) -> bool:
        return isinstance(leaf, optax.MaskedNode)

    return jax.tree.map(lambda a, b: b if missing(a) else a, tree, others, is_leaf=missing)
