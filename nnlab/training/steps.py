"""The pure functions of training: `init`, `step`, `epoch`, `evaluate`.

`State` is everything that must be saved: the same state and the same data give the same next state
to the bit. Randomness comes from `state.key`, folded with the step (augmentation, dropout) or with
the epoch (order of the images); the key itself never changes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from nnlab.errors import InputError
from nnlab.training.losses import cross_entropy

Batch = tuple[jax.Array, jax.Array]
Loss = Callable[[jax.Array, jax.Array], jax.Array]
Metrics = dict[str, jax.Array]


class State(NamedTuple):
    """Where a training stands.

    Attributes:
        step: number of updates made, int32 scalar.
        params, batch_stats: Flax collections.
        opt_state: of the optax transformation.
        key: typed PRNG key that all randomness is folded from.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    key: jax.Array


def init(
    key: jax.Array, model: nn.Module, optimizer: optax.GradientTransformation, images: jax.Array
) -> State:
    """A fresh state; of `images` [batch, height, width, channels] only shape and dtype matter."""
    params_key, key = jax.random.split(key)
    variables = jax.jit(model.init, static_argnames="train")(params_key, images[:1], train=False)
    params = variables["params"]
    stats = variables.get("batch_stats", {})
    return State(jnp.zeros((), jnp.int32), params, stats, optimizer.init(params), key)


def train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    loss: Loss = cross_entropy,
    augment: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> Callable[[State, Batch], tuple[State, Metrics]]:
    """Returns `step(state, (images, labels)) -> (state, {"loss", "accuracy"})`, pure and unjitted.

    `augment(key, images)` is applied to the images of each step. The metrics are means over the
    batch in training mode, before the update.
    """

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        images, labels = batch
        key = jax.random.fold_in(_step_key(state), state.step)
        augment_key, dropout_key = jax.random.split(key)
        if augment is not None:
            images = augment(augment_key, images)

        def objective(params):
            logits, updates = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": dropout_key},
            )
            return loss(logits, labels), (logits, updates.get("batch_stats", {}))

        (value, (logits, stats)), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": value, "accuracy": jnp.mean(logits.argmax(-1) == labels)}
        return State(state.step + 1, params, stats, opt_state, state.key), metrics

    return step


def steps_per_epoch(data: Batch, batch_size: int) -> int:
    """How many full batches the images hold.

    Raises:
        InputError: not one.
    """
    images = len(data[0])
    if batch_size > images:
        raise InputError(f"--batch-size must be at most the {images} images, not {batch_size}.")
    return images // batch_size


def train_epoch(
    step: Callable[[State, Batch], tuple[State, Metrics]], batch_size: int
) -> Callable[[State, Batch], tuple[State, Metrics]]:
    """Returns `epoch(state, (images, labels))`: one pass over arrays in memory, one program.

    The images come in an order drawn from `state.key` and the number of the epoch; those that do
    not fill a last batch are left out, others in every epoch. Metrics are stacked: [steps].
    """

    @jax.jit
    def epoch(state: State, data: Batch) -> tuple[State, Metrics]:
        images, labels = data
        steps = steps_per_epoch(data, batch_size)
        key = jax.random.fold_in(_order_key(state), state.step // steps)
        order = jax.random.permutation(key, len(images))[: steps * batch_size]

        def body(state, chosen):
            return step(state, (images[chosen], labels[chosen]))

        return lax.scan(body, state, order.reshape(steps, batch_size))

    return epoch


def evaluation(
    model: nn.Module, loss: Loss = cross_entropy, batch_size: int = 500
) -> Callable[[State, Batch], Metrics]:
    """Returns `evaluate(state, (images, labels)) -> {"loss", "accuracy"}` over all images.

    Runs in evaluation mode: BatchNorm uses its running statistics, dropout is off.
    """

    @jax.jit
    def evaluate(state: State, data: Batch) -> Metrics:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        logits = in_batches(lambda x: model.apply(variables, x, train=False), data[0], batch_size)
        accuracy = jnp.mean(logits.argmax(-1) == data[1])
        return {"loss": loss(logits, data[1]), "accuracy": accuracy}

    return evaluate


def in_batches(fn: Callable[[jax.Array], Any], images: jax.Array, batch_size: int) -> Any:
    """`fn(images)` for a function of each image alone, with `batch_size` images in memory at once.

    `fn` returns an array, or a tree of arrays, whose first axis is that of the images.
    """
    rest = len(images) % batch_size
    full = images[: len(images) - rest].reshape(-1, batch_size, *images.shape[1:])
    results = jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:]), lax.map(fn, full))
    if rest:
        last = fn(images[-rest:])
        results = jax.tree.map(lambda *parts: jnp.concatenate(parts), results, last)
    return results


def _order_key(state: State) -> jax.Array:
    return jax.random.fold_in(state.key, 0)


def _step_key(state: State) -> jax.Array:
    return jax.random.fold_in(state.key, 1)
