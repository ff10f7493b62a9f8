"""The pure functions of training: `init`, `step`, `epoch`.

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
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nnlab.errors import InputError
from nnlab.kernels.batch import vary_alike
from nnlab.optim.freezing import fill, frozen_paths, without
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


Step = Callable[[State, Batch], tuple[State, Metrics]]


class Watched(NamedTuple):
    """What a step looks at before it is taken; the first leaf that is not finite gets named."""

    batch_stats: Any
    loss: Any
    gradients: Any
    params: Any


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
    loss: Callable[[Any, jax.Array], jax.Array] = cross_entropy,
    augment: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    *,
    logits: Callable[[Any], jax.Array] = lambda outputs: outputs,
    accumulate: int = 1,
    axis_name: str | None = None,
    combine: Callable[[Any, str], Any] = lax.pmean,
) -> Step:
    """Returns `step(state, (images, labels)) -> (state, metrics)`, pure and unjitted.

    A step that would leave a number that is not finite is not taken: the state comes back as it
    was, and the metrics tell which leaf it was. Under `optax.apply_if_finite` a gradient that is
    not finite is that optimiser's to skip: the step counts, and running statistics stay.

    Parameters that `nnlab.optim.freeze` holds in the optimiser keep their bits and are not
    differentiated: their gradients are zeros to what stands around it, and are not combined.

    Args:
        model, optimizer, loss: the loss of the model's outputs against labels is a mean over the
            batch.
        augment: `augment(key, images)`, applied to the images of each step.
        logits: of the model's outputs, for the accuracy; by default they are the outputs.
        accumulate: how many parts of the batch go through the network one after the other, to
            save memory. The gradient is that of the whole batch, except that BatchNorm normalises
            each part by its own statistics; the running ones take the mean over the parts.
        axis_name: of `jax.pmap` or `jax.shard_map`, where the step sees one device's part of the
            batch. Gradients, running statistics and metrics are averaged over it; augmentation and
            dropout draw differently on each device.
        combine: what makes one gradient of those of all devices along `axis_name`, called as
            `combine(gradients, axis_name)`, such as `nnlab.optim.majority_vote`; by default their
            mean.

    Returns:
        The function. Its metrics are scalars: "loss" and "accuracy", means over the batch in
        training mode before the update, and "nonfinite", int32, -1 or the number of the first leaf
        of `Watched` with a number that is not finite, which `leaf_name` gives its name.

    Raises:
        InputError: `accumulate` is below 1, or, on the call, does not divide the batch.
    """
    if accumulate < 1:
        raise InputError(f"accumulate must be at least 1, not {accumulate}.")

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        images, labels = batch
        params, stats = _varying_like(images, (state.params, state.batch_stats))
        key = jax.random.fold_in(_step_key(state), state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, lax.axis_index(axis_name))
        augment_key, dropout_key = jax.random.split(key)
        if augment is not None:
            images = augment(augment_key, images)
            batch = images, labels

        frozen = frozen_paths(state.opt_state)

        def objective(trained, images, labels, key):
            outputs, updates = model.apply(
                {"params": fill(trained, params), "batch_stats": stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
            value = loss(outputs, labels)
            hits = logits(outputs).argmax(-1) == labels
            metrics = {"loss": value, "accuracy": jnp.mean(hits)}
            return value, (updates.get("batch_stats", {}), metrics)

        def of_part(images, labels, key):
            trained = without(params, frozen)
            grads, others = jax.grad(objective, has_aux=True)(trained, images, labels, key)
            return _varying_like(images, (grads, *others))

        if accumulate == 1:
            results = of_part(images, labels, dropout_key)
        else:
            keys = jax.random.split(dropout_key, accumulate)
            results = _mean_over_parts(of_part, *_parts(batch, accumulate), keys)
        grads, new_stats, metrics = results
        if axis_name is not None:
            grads = combine(grads, axis_name)
            new_stats, metrics = lax.pmean((new_stats, metrics), axis_name)

        grads = fill(grads, jax.tree.map(jnp.zeros_like, state.params))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        new_params = optax.apply_updates(state.params, updates)
        new_params = fill(without(new_params, frozen), state.params)
        after = State(state.step + 1, new_params, new_stats, opt_state, state.key)
        watched = Watched(new_stats, metrics["loss"], grads, new_params)
        if isinstance(opt_state, optax.ApplyIfFiniteState):
            held = _select(_first_nonfinite(watched) < 0, new_stats, state.batch_stats)
            after = after._replace(batch_stats=held)
            watched = Watched(held, jnp.zeros(()), jax.tree.map(jnp.zeros_like, grads), new_params)
        bad = _first_nonfinite(watched)
        return _select(bad < 0, after, state), metrics | {"nonfinite": bad}

    return step


def leaf_name(state: State, number: int) -> str:
    """The name of a leaf by its number in a step's metric "nonfinite"."""
    tree = Watched(state.batch_stats, state.step, state.params, state.params)
    return jax.tree_util.keystr(jax.tree_util.tree_leaves_with_path(tree)[number][0])[1:]


def steps_per_epoch(data: Batch, batch_size: int) -> int:
    """How many full batches the images hold.

    Raises:
        InputError: not one.
    """
    images = len(data[0])
    if batch_size > images:
        raise InputError(f"--batch-size must be at most the {images} images, not {batch_size}.")
    return images // batch_size


def check_divides(devices: int, images: int) -> None:
    """Raises `InputError` unless the images of a batch make equal parts for the devices."""
    if images % devices:
        raise InputError(f"--batch-size must be a multiple of the {devices} devices, not {images}.")


def train_steps(
    step: Step,
    batch_size: int,
    *,
    mesh: Mesh | None = None,
) -> Callable[[State, Batch, jax.Array | int], tuple[State, Metrics]]:
    """Returns `run(state, (images, labels), count) -> (state, metrics)`, pure and unjitted.

    It takes `count` steps over arrays in memory, fewer where the epoch ends, and stops before a
    step that would leave something not finite. The images of an epoch come in an order drawn from
    `state.key` and the number of the epoch; those that do not fill a last batch are left out,
    others in every epoch. Metrics are [steps an epoch], filled in at the steps that were made.

    The count is a number in the compiled program, not in its structure, so one program serves all
    counts: an epoch cut in pieces anywhere gives the same bits as the whole.

    With a `mesh`, as by `nnlab.training.parallel.data_mesh`, state and arrays lie on every device,
    and each takes its part of a batch from its own copy, so that no image travels. The batches are
    those without a mesh.

    Raises:
        InputError: on the call, for fewer images than `batch_size`, or at once for a batch that the
            devices do not divide.
    """
    if mesh is not None:
        check_divides(mesh.shape["data"], batch_size)

    def run(state: State, data: Batch, count: jax.Array | int) -> tuple[State, Metrics]:
        images, labels = data
        steps = steps_per_epoch(data, batch_size)
        epoch, first = jnp.divmod(state.step, steps)
        key = jax.random.fold_in(_order_key(state), epoch)
        order = jax.random.permutation(key, len(images))[: steps * batch_size]
        order = order.reshape(steps, batch_size)
        last = jnp.minimum(first + count, steps)

        def body(carry):
            number, _, state, metrics = carry
            chosen = split_images(order[number], mesh)
            batch = split_images(images[chosen], mesh), split_images(labels[chosen], mesh)
            state, new = step(state, batch)
            metrics = jax.tree.map(lambda all, one: all.at[number].set(one), metrics, new)
            return number + 1, new.get("nonfinite", -1) < 0, state, metrics

        def wanted(carry):
            number, finite, _, _ = carry
            return (number < last) & finite

        shapes = jax.eval_shape(step, state, (images[:batch_size], labels[:batch_size]))[1]
        metrics = jax.tree.map(lambda m: jnp.zeros((steps, *m.shape), m.dtype), shapes)
        return lax.while_loop(wanted, body, (first, jnp.array(True), state, metrics))[2:]

    return run


def split_images(images: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Inside a compiled function: on a mesh, the images as split over its devices."""
    if mesh is None:
        return images
    return lax.with_sharding_constraint(images, NamedSharding(mesh, PartitionSpec("data")))


def train_epoch(step: Step, batch_size: int) -> Step:
    """Returns `epoch(state, (images, labels))`: one pass by `train_steps`, one compiled program.

    Metrics are [steps]. From a state within an epoch it goes to that epoch's end.
    """
    run = train_steps(step, batch_size)
    return jax.jit(lambda state, data: run(state, data, steps_per_epoch(data, batch_size)))


def _order_key(state: State) -> jax.Array:
    return jax.random.fold_in(state.key, 0)


def _step_key(state: State) -> jax.Array:
    return jax.random.fold_in(state.key, 1)


def _parts(batch: Batch, n: int) -> Batch:
    """[batch, ...] as [n, batch / n, ...]; every part takes from every device's share."""
    images = len(batch[0])
    if images % n:
        raise InputError(f"accumulate must divide the batch of {images} images, not be {n}.")

    def split(a):
        return jnp.moveaxis(a.reshape(images // n, n, *a.shape[1:]), 1, 0)

    return split(batch[0]), split(batch[1])


def _mean_over_parts(fn: Callable[..., Any], *parts: jax.Array) -> Any:
    """The mean of `fn(*part)` over the first axis of `parts`, one part after the other."""
    shapes = jax.eval_shape(fn, *(part[0] for part in parts))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    zeros = _varying_like(parts[0], zeros)

    def add(total, part):
        return jax.tree.map(jnp.add, total, fn(*part)), None

    return jax.tree.map(lambda total: total / len(parts[0]), lax.scan(add, zeros, parts)[0])


def _varying_like(images: jax.Array, tree: Any) -> Any:
    """Inside `jax.shard_map`, the arrays as each device's own; elsewhere as they are.

    A gradient with respect to parameters that are everyone's would already be a sum over devices.
    """
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten(vary_alike(images, *leaves)[1:])


def _first_nonfinite(tree: Any) -> jax.Array:
    """The number of the first leaf with a number that is not finite, or -1."""
    bad = jnp.stack([~jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)])
    return jnp.where(bad.any(), bad.argmax(), -1).astype(jnp.int32)


def _select(condition: jax.Array, true: Any, false: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), true, false)
