"""The pure functions of training: `init` and `step`.

`State` is everything that must be saved: the same state and the same data give the same next state
to the bit. Randomness comes from `state.key`, folded with the step (augmentation, dropout) or with
the epoch (order of the examples); the key itself never changes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from nnlab.data.batches import shared_size
from nnlab.errors import InputError
from nnlab.kernels.batch import match_varying
from nnlab.layers.sequences import no_carry
from nnlab.optim.freezing import fill, frozen_paths, without
from nnlab.training.losses import cross_entropy

Batch = tuple[Any, Any]  # inputs and labels, each any tree of arrays [examples, ...]
Loss = Callable[[Any, Any], jax.Array]
Metrics = dict[str, jax.Array]


class State(NamedTuple):
    """Where a training stands.

    Attributes:
        step: number of updates made, int32 scalar.
        params, batch_stats: Flax collections.
        opt_state: of the optax transformation.
        key: typed PRNG key that all randomness is folded from.
        carry: the Flax collection of what recurrent layers carry from batch to batch, where they
            do (`init`), otherwise empty.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    key: jax.Array
    carry: Any = ()


Step = Callable[[State, Batch], tuple[State, Metrics]]


class Watched(NamedTuple):
    """What a step looks at before it is taken; the first leaf that is not finite gets named."""

    batch_stats: Any
    loss: Any
    gradients: Any
    params: Any


def init(
    key: jax.Array,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    inputs: Any,
    *,
    streams: int | None = None,
) -> State:
    """Return a fresh state.

    Args:
        key: the run's PRNG key.
        model: called as `model(inputs, train=…)`, with the whole tree of inputs as one argument.
        optimizer: the transformation whose state is made.
        inputs: an array [examples, ...], or any tree of them; only shapes and dtypes matter.
        streams: the size of the batches, if each continues the sequences of the one before it and
            recurrent layers keep their state from one to the next: truncated back-propagation
            through time. By default every batch starts afresh. An epoch begins with zeros. It needs
            batches in their order, `in_memory(…, shuffle=False)`.

    Raises:
        InputError: the arrays differ in their number of examples, or `streams` is given and the
            model has no recurrent layer that carries a state.
    """
    shared_size(inputs)
    params_key, key = jax.random.split(key)
    one = jax.tree.map(lambda a: a[:1], inputs)
    variables = jax.jit(model.init, static_argnames="train")(params_key, one, train=False)
    params = variables["params"]
    stats = variables.get("batch_stats", {})
    carry = () if streams is None else _carry(model, variables, inputs, streams)
    return State(jnp.zeros((), jnp.int32), params, stats, optimizer.init(params), key, carry)


def _carry(model: nn.Module, variables: Any, inputs: Any, streams: int) -> Any:
    """Return the collection "carry" before the first batch of `streams` sequences."""
    batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct((streams, *a.shape[1:]), a.dtype), inputs)
    found = no_carry(model, variables, batch).get("carry")
    if not found:
        raise InputError(f"{type(model).__name__} has no recurrent layer that carries a state.")
    return found


def accuracy(logits: jax.Array, labels: jax.Array) -> Metrics:
    """{"accuracy"}: how often the largest of logits [..., classes] is that of the label [...]."""
    return {"accuracy": jnp.mean(logits.argmax(-1) == labels)}


def train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    loss: Loss = cross_entropy,
    augment: Callable[[jax.Array, Any], Any] | None = None,
    *,
    metrics: Callable[[Any, Any], Metrics] = accuracy,
    accumulate: int = 1,
    axis_name: str | None = None,
    combine: Callable[[Any, str], Any] = lax.pmean,
) -> Step:
    """Return `step(state, (inputs, labels)) -> (state, metrics)`, pure and unjitted.

    Inputs and labels are arrays [examples, ...], or any trees of them, of any dtype: token ids
    and a mask, for example. The model is called as `model(inputs, train=True)`.

    A step that would leave a number that is not finite is not taken: the state comes back as it
    was, and the metrics say which leaf it was. Under `optax.apply_if_finite` a gradient that is
    not finite is left to that optimiser to skip: the step counts, and running statistics stay.

    Parameters that `nnlab.optim.freeze` holds in the optimiser keep their bits and are not
    differentiated: transformations around it see gradients of zero, which are not combined.

    Args:
        model, optimizer: what is trained, and how.
        loss: `loss(outputs, labels)`, a mean over the batch.
        augment: `augment(key, inputs)`, applied to the whole tree of inputs in each step.
        metrics: `metrics(outputs, labels)`, named scalars, each a mean over the batch; by default
            the accuracy of outputs that are logits.
        accumulate: how many parts of the batch go through the network one after the other, to
            save memory. The gradient is that of the whole batch, except that BatchNorm normalises
            each part by its own statistics; the running ones take the mean over the parts.
        axis_name: the axis of `jax.pmap` or `jax.shard_map` under which the step sees one device's
            part of the batch. Gradients, running statistics and metrics are averaged over it;
            augmentation and dropout draw differently on each device.
        combine: `combine(gradients, axis_name)`, one gradient from those of all devices, such as
            `nnlab.optim.majority_vote`; by default their mean.

    Returns:
        The step. Its metrics are scalars: "loss" and those of `metrics`, means over the batch
        in training mode before the update, and "nonfinite", int32, -1 or the number of the first
        leaf of `Watched` with a number that is not finite; `leaf_name` turns it into a name.

    Raises:
        InputError: `accumulate` is below 1; or, on the call, it is above 1 and does not divide the
            batch, or the arrays of the batch differ in their number of examples; or a state is
            carried and `accumulate` is above 1 or there is an `axis_name`.
    """
    if accumulate < 1:
        raise InputError(f"accumulate must be at least 1, not {accumulate}.")

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        inputs, labels = batch
        carried = {"carry": state.carry} if state.carry else {}
        if carried and (accumulate > 1 or axis_name is not None):
            raise InputError(
                "a carried state needs whole batches, accumulate=1 and no axis_name, not "
                f"{accumulate} and {axis_name}."
            )
        params, stats = _varying_like(inputs, (state.params, state.batch_stats))
        key = jax.random.fold_in(_step_key(state), state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, lax.axis_index(axis_name))
        augment_key, dropout_key = jax.random.split(key)
        if augment is not None:
            inputs = augment(augment_key, inputs)
            batch = inputs, labels

        frozen = frozen_paths(state.opt_state)

        def objective(trained, inputs, labels, key):
            outputs, updates = model.apply(
                {"params": fill(trained, params), "batch_stats": stats, **carried},
                inputs,
                train=True,
                mutable=["batch_stats", *carried],
                rngs={"dropout": key},
            )
            value = loss(outputs, labels)
            found = {"loss": value, **metrics(outputs, labels)}
            return value, (updates.get("batch_stats", {}), found, updates.get("carry", ()))

        def of_part(inputs, labels, key):
            trained = without(params, frozen)
            grads, others = jax.grad(objective, has_aux=True)(trained, inputs, labels, key)
            return _varying_like(inputs, (grads, *others))

        if accumulate == 1:
            results = of_part(inputs, labels, dropout_key)
        else:
            keys = jax.random.split(dropout_key, accumulate)
            results = _mean_over_parts(of_part, *_parts(batch, accumulate), keys)
        grads, new_stats, found, carry = results
        if axis_name is not None:
            grads = combine(grads, axis_name)
            new_stats, found = lax.pmean((new_stats, found), axis_name)

        grads = fill(grads, jax.tree.map(jnp.zeros_like, state.params))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        new_params = optax.apply_updates(state.params, updates)
        new_params = fill(without(new_params, frozen), state.params)
        after = State(state.step + 1, new_params, new_stats, opt_state, state.key, carry)
        watched = Watched(new_stats, found["loss"], grads, new_params)
        if isinstance(opt_state, optax.ApplyIfFiniteState):
            held = _select(_first_nonfinite(watched) < 0, new_stats, state.batch_stats)
            kept = _select(_first_nonfinite(watched) < 0, carry, state.carry)
            after = after._replace(batch_stats=held, carry=kept)
            watched = Watched(held, jnp.zeros(()), jax.tree.map(jnp.zeros_like, grads), new_params)
        bad = _first_nonfinite(watched)
        return _select(bad < 0, after, state), found | {"nonfinite": bad}

    return step


def leaf_name(state: State, number: int) -> str:
    """The name of a leaf by its number in a step's metric "nonfinite"."""
    tree = Watched(state.batch_stats, state.step, state.params, state.params)
    return jax.tree_util.keystr(jax.tree_util.tree_leaves_with_path(tree)[number][0])[1:]


def _step_key(state: State) -> jax.Array:
    return jax.random.fold_in(state.key, 1)


def _parts(batch: Batch, n: int) -> Batch:
    """Reshape [batch, ...] to [n, batch / n, ...]; every part takes from every device's share."""
    examples = shared_size(batch)
    if examples % n:
        raise InputError(f"accumulate must divide the batch of {examples} examples, not be {n}.")

    def split(a):
        return jnp.moveaxis(a.reshape(examples // n, n, *a.shape[1:]), 1, 0)

    return jax.tree.map(split, batch)


def _mean_over_parts(fn: Callable[..., Any], *parts: Any) -> Any:
    """Return the mean of `fn(*part)` over the first axis of `parts`, one part after the other."""
    shapes = jax.eval_shape(fn, *jax.tree.map(lambda part: part[0], parts))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    zeros = _varying_like(parts[0], zeros)

    def add(total, part):
        return jax.tree.map(jnp.add, total, fn(*part)), None

    return jax.tree.map(lambda total: total / shared_size(parts), lax.scan(add, zeros, parts)[0])


def _varying_like(inputs: Any, tree: Any) -> Any:
    """Mark the arrays of `tree` as each device's own inside `jax.shard_map`, if `inputs` are.

    A gradient with respect to parameters that all devices share would already be a sum over
    devices. Elsewhere the arrays come back as they are.
    """
    given = jax.tree.leaves(inputs)
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten(match_varying(*given, *leaves)[len(given) :])


def _first_nonfinite(tree: Any) -> jax.Array:
    """The number of the first leaf with a number that is not finite, or -1."""
    bad = jnp.stack([~jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)])
    return jnp.where(bad.any(), bad.argmax(), -1).astype(jnp.int32)


def _select(condition: jax.Array, true: Any, false: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), true, false)
