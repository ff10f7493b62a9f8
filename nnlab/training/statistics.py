r"""Statistics of BatchNorm taken anew, over many batches with the weights as they are now.

Running statistics are an average over past steps, whose weights were others. Where weights move
fast, as in the first epochs and in adder networks, an evaluation with them shows less than the
network can do. With the weights held, the mean and variance of all examples of K batches are

.. math::
    \mu = \frac1K \sum_i \mu_i, \qquad
    \sigma^2 = \frac1K \sum_i \left[ \sigma_i^2 + (\mu_i - \mu)^2 \right]                  (1)

Training itself never reads them, so nothing of it changes.

References:
    Wu & Johnson, Rethinking "Batch" in BatchNorm, 2021, https://arxiv.org/abs/2105.07576,
    section 3.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from nnlab.data.batches import shared_size
from nnlab.errors import InputError
from nnlab.training.parallel import replicate
from nnlab.training.steps import State

BATCHES = 20


def fresh_statistics(
    model: nn.Module,
    inputs: Any,
    batch_size: int,
    *,
    batches: int = BATCHES,
    augment: Callable[[jax.Array, Any], Any] | None = None,
) -> Callable[[State], State]:
    """Return `renew(state)`, compiled: the state with statistics (1) of all `flax.linen.BatchNorm`.

    Args:
        model: called as `model(inputs, train=True)`.
        inputs: of training, an array [examples, ...] or a tree of them; the first batches are used.
        batch_size: of training, so that layers see what they see there.
        batches: how many, or as many as there are.
        augment: as in `train_step`.

    Raises:
        InputError: there are fewer examples than a batch, or `batches` is below 1.
    """
    renew, parts = _program(model, inputs, batch_size, batches, augment)
    return lambda state: renew(state, parts)


def compiled_statistics(
    state: State,
    model: nn.Module,
    inputs: Any,
    batch_size: int,
    *,
    batches: int = BATCHES,
    augment: Callable[[jax.Array, Any], Any] | None = None,
    mesh: Mesh | None = None,
) -> Callable[[State], State]:
    """Return `fresh_statistics`, compiled now for states like this one, on the devices of a mesh.

    Raises:
        InputError: as for `fresh_statistics`.
    """
    renew, parts = _program(model, inputs, batch_size, batches, augment)
    parts = parts if mesh is None else replicate(parts, mesh)
    program = renew.lower(state, parts).compile()
    return lambda state: program(state, parts)


def _program(
    model: nn.Module,
    inputs: Any,
    batch_size: int,
    batches: int,
    augment: Callable[[jax.Array, Any], Any] | None,
) -> tuple[Any, Any]:
    """Return `renew(state, parts) -> state`, from `jax.jit`, and inputs [batches, batch, ...]."""
    count = min(batches, shared_size(inputs) // batch_size) if batch_size > 0 else 0
    if count < 1:
        raise InputError(
            f"statistics take at least one batch of 1 or more examples, not {batches} of "
            f"{batch_size} from {shared_size(inputs)}."
        )
    parts = jax.tree.map(
        lambda a: a[: count * batch_size].reshape(count, batch_size, *a.shape[1:]), inputs
    )

    @jax.jit
    def renew(state: State, parts: Any) -> State:
        momenta: dict[tuple[str, ...], float] = {}

        def watch(method: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext):
            if isinstance(context.module, nn.BatchNorm):
                momenta[context.module.path] = context.module.momentum
            return method(*args, **kwargs)

        def of_batch(part):
            key, x = part
            augment_key, dropout_key = jax.random.split(key)
            if augment is not None:
                x = augment(augment_key, x)
            with nn.intercept_methods(watch):
                _, updates = model.apply(
                    {"params": state.params, "batch_stats": state.batch_stats},
                    x,
                    train=True,
                    mutable=["batch_stats"],
                    rngs={"dropout": dropout_key},
                )
            return updates["batch_stats"]

        keys = jax.random.split(
            jax.random.fold_in(jax.random.fold_in(state.key, 3), state.step), count
        )
        moved = lax.map(of_batch, (keys, parts))
        stats = state.batch_stats
        for path, momentum in momenta.items():
            old, new = stats, moved
            for name in path:
                old, new = old.get(name, {}), new.get(name, {})
            if old and momentum < 1:
                # A step makes momentum old + (1 - momentum) that of the batch.
                of = {
                    name: (new[name] - momentum * old[name]) / (1 - momentum)
                    for name in ("mean", "var")
                }
                mean = of["mean"].mean(axis=0)
                var = (of["var"] + jnp.square(of["mean"] - mean[None])).mean(axis=0)  # (1)
                taken = {"mean": mean, "var": var}
                taken = {name: leaf.astype(old[name].dtype) for name, leaf in taken.items()}
                stats = _with(stats, path, taken)
        return state._replace(batch_stats=stats)

    return renew, parts


def _with(tree: Any, path: tuple[str, ...], leaves: dict[str, jax.Array]) -> Any:
    """`tree` with these leaves at `path`."""
    if not path:
        return {**tree, **leaves}
    return {**tree, path[0]: _with(tree[path[0]], path[1:], leaves)}
