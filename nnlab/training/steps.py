"""The two pure functions of training: `init` makes a state, `train_step` makes a step.

    state = init(key, model, optimizer, inputs)
    step = jax.jit(train_step(model, optimizer))
    state, metrics = step(state, (inputs, labels))

A `State` is everything that must be saved: the same state and the same data give the same next
state to the bit. All randomness comes from `state.key`, folded with the step (augmentation,
dropout) or with the epoch (order of the examples); the key itself never changes.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.dynamic_scale import DynamicScale
from jax import lax

from nnlab.data.batches import check_batch, check_shape, check_some, shared_size
from nnlab.errors import InputError, check_count
from nnlab.layers.sequences import no_carry
from nnlab.ops.keys import check_key
from nnlab.optim.freezing import fill, frozen_paths, without
from nnlab.training import loss_scaling
from nnlab.training.accumulation import mean_over_parts, parts_of, varying_like
from nnlab.training.doctor import diagnose
from nnlab.training.losses import are_soft, cross_entropy
from nnlab.training.models import apply, check_axes, check_model, check_optimizer, label_check

Batch = tuple[Any, Any]  # inputs and labels, each any tree of arrays [examples, ...]
Loss = Callable[[Any, Any], jax.Array]
Metrics = dict[str, jax.Array]


class State(NamedTuple):
    """All that a training run needs to go on.

    Attributes:
        step: number of updates made so far, int32 scalar.
        params, batch_stats: Flax collections of the model.
        opt_state: state of the optax transformation.
        key: typed PRNG key from which all randomness is folded.
        carry: Flax collection of the states that recurrent layers keep from batch to batch; empty
            unless `init` was given `streams`.
        loss_scale: what the loss is multiplied by; empty unless `init` was given one.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    key: jax.Array
    carry: Any = ()
    loss_scale: Any = ()


Step = Callable[[State, Batch], tuple[State, Metrics]]


class Watched(NamedTuple):
    """The values that a step checks before it is taken, in the order in which they are checked."""

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
    loss_scale: DynamicScale | None = None,
) -> State:
    """Return the state before the first step.

    Args:
        key: PRNG key of the run.
        model: called as `model(inputs, train=…)`, with the whole tree of inputs as one argument.
        optimizer: optax transformation to make the state of.
        inputs: an array [examples, ...] or any tree of arrays; only shapes and dtypes matter. The
            model sees one example, or all of the tree where the arrays share no axis of examples,
            as in a graph of nodes [nodes, features] and edges [edges, features].
        streams: the batch size, for truncated back-propagation through time: each batch continues
            the sequences of the one before, from the states in which recurrent layers ended; each
            epoch starts from zeros. Batches must come in order, `in_memory(…, shuffle=False)`. By
            default every batch starts from zeros.
        loss_scale: begin loss scaling, for networks that compute in float16
            (`nnlab.training.loss_scaling`).

    Raises:
        InputError: `key` is no random key, or `optimizer` no transformation; the model is no Linen
            module that takes `train`, or has something else where an arithmetic belongs, or does
            not take `inputs`, such as images with channels first; there are no examples, or they
            are no numbers; the scale is none of
            Flax's; or `streams` is given, and the arrays differ in their number of examples or the
            model has no recurrent layer that carries a state.
    """
    check_key(key)
    check_model(model)
    check_optimizer(optimizer)
    check_axes(model, inputs)

    @jax.jit
    def begin(key: jax.Array, few: Any) -> tuple[Any, jax.Array]:
        params_key, key = jax.random.split(key)
        return model.init(params_key, few, train=False), key

    few = _first_example(inputs)
    try:
        variables, key = begin(key, few)
    except (AttributeError, TypeError) as error:
        if hasattr(inputs, "shape"):
            raise
        raise InputError(  # most models take one array
            f"{type(model).__name__} does not take inputs that are a {type(inputs).__name__} "
            f"({str(error).splitlines()[0].rstrip('.')}); expected an array [examples, ...]."
        ) from error
    params = variables["params"]
    stats = variables.get("batch_stats", {})
    carry = () if streams is None else _carry(model, variables, inputs, streams)
    scale = () if loss_scale is None else loss_scaling.begun(loss_scale)
    opt_state = optimizer.init(params)
    return State(jnp.zeros((), jnp.int32), params, stats, opt_state, key, carry, scale)


def _first_example(inputs: Any) -> Any:
    """Return the first example of a tree of arrays, or the tree if they share no such axis."""
    check_some(inputs)
    try:
        shared_size(inputs)
    except InputError:
        return inputs
    return jax.tree.map(lambda a: a[:1], inputs)


def _carry(model: nn.Module, variables: Any, inputs: Any, streams: int) -> Any:
    """Return the collection "carry" before the first batch of `streams` sequences."""
    shared_size(inputs)
    batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct((streams, *a.shape[1:]), a.dtype), inputs)
    found = no_carry(model, variables, batch).get("carry")
    if not found:
        raise InputError(f"{type(model).__name__} has no recurrent layer that carries a state.")
    return found


def accuracy(logits: jax.Array, labels: jax.Array) -> Metrics:
    """Return {"accuracy"}: the part of labels [...] with the largest of logits [..., classes].

    Of a soft label [..., classes] the share of that class counts, as in the code of mixup.

    Raises:
        InputError: there is not one label for each row of logits.
    """
    if are_soft(logits, labels):
        check_shape("soft labels for the accuracy of logits", labels, logits.shape)
        chosen = logits.argmax(-1, keepdims=True)
        return {"accuracy": jnp.mean(jnp.take_along_axis(labels, chosen, axis=-1))}
    check_shape("labels for the accuracy of logits", labels, logits.shape[:-1])
    return {"accuracy": jnp.mean(logits.argmax(-1) == labels)}


def train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    loss: Loss = cross_entropy,
    augment: Callable[[jax.Array, Any], Any] | None = None,
    *,
    mix: Callable[[jax.Array, Any, Any], Batch] | None = None,
    metrics: Callable[[Any, Any], Metrics] = accuracy,
    accumulate: int = 1,
    gradient_norm: bool = False,
    axis_name: str | None = None,
    combine: Callable[[Any, str], Any] = lax.pmean,
) -> Step:
    """Return `step(state, (inputs, labels)) -> (state, metrics)`, pure and not yet compiled.

    Inputs and labels are arrays [examples, ...] or any trees of them, of any dtype, such as token
    ids and a mask. The model is called as `model(inputs, train=True)`. Unless `accumulate` splits
    it, a batch may also lack an axis of examples, such as one graph of nodes and edges.

    If the new state would hold a number that is not finite, the step is not taken: the old state is
    returned, and a metric says where that number was. Under `optax.apply_if_finite` the optimiser
    itself skips such gradients: the step counts, and running statistics stay as they were. With a
    loss scale a step whose gradients alone are not finite counts too and changes only the scale,
    until that cannot become smaller.

    Parameters frozen by `nnlab.optim.freeze` keep their bits and are not differentiated:
    transformations around `freeze` see zero gradients, and devices exchange none.

    Args:
        model, optimizer: the network to train and the optax transformation that trains it, which
            is handed the loss as `value`.
        loss: `loss(outputs, labels)`, a scalar, the mean over the batch.
        augment: `augment(key, inputs)`, applied to the whole tree of inputs in each step.
        mix: `mix(key, inputs, labels)`, augmentation that sees the labels and returns both, such as
            `functools.partial(nnlab.vision.mixup, classes=10)`, after `augment`.
        metrics: `metrics(outputs, labels)`, named scalars, each a mean over the batch; by default
            the accuracy of outputs that are logits.
        accumulate: the number of parts in which the batch goes through the network, one after the
            other, to save memory. The gradient is that of the whole batch, except that BatchNorm
            normalises each part by its own statistics; running statistics take their mean.
        gradient_norm: also measure "gradient_norm", the Euclidean norm of the whole gradient before
            the optimiser changes it. Training keeps its bits; the cost is a multiplication and an
            addition for each parameter and step.
        axis_name: the axis of `jax.pmap` or `jax.shard_map`, if the step runs under one and sees
            one device's part of the batch. Gradients, running statistics and metrics are averaged
            over it; augmentation and dropout draw differently on each device.
        combine: `combine(gradients, axis_name)`, one gradient from those of all devices, such as
            `nnlab.optim.majority_vote`; by default their mean.

    Returns:
        The step, whose attribute `diagnose` is `nnlab.training.diagnose` of this model, loss and
        augmentation, `augment` that augmentation, `learning_rate` the schedule of a recipe of
        `nnlab.optim` or None, and `check(state, batch)`, which raises `InputError` if labels in
        memory are none of the classes. Its metrics are scalars: "loss" and those of `metrics`,
        means over the batch in training mode before the update, and "nonfinite", int32: -1, or the
        number of the first leaf of `Watched` that is not finite, which `leaf_name` turns into a
        name. With a loss scale there are "loss_scale", float32, and "overflow", 1 where that
        stopped the step or 0.

    Raises:
        InputError: `accumulate` is below 1; or, when the step is called, the batch has no examples;
            `accumulate` is above 1 and does not divide the batch, or its arrays differ in their
            number of examples; a layer with a kernel is given bytes, or a network of nnlab's images
            with channels first; or there is a carried state and `accumulate` is above 1 or
            `axis_name` is given.
    """
    check_model(model)
    check_optimizer(optimizer)
    check_count("accumulate", accumulate)

    are_classes = label_check(model)

    def check(state: State, batch: Batch) -> None:
        inputs, labels = check_batch(batch)
        if loss is cross_entropy:
            variables = {"params": state.params, "batch_stats": state.batch_stats}
            are_classes(variables, inputs, labels)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        inputs, labels = check_batch(batch)
        check_some(inputs)
        carried = {"carry": state.carry} if state.carry else {}
        if carried and (accumulate > 1 or axis_name is not None):
            raise InputError(
                "a carried state needs accumulate=1 and no axis_name, not "
                f"accumulate={accumulate} and axis_name={axis_name}."
            )
        params, stats = varying_like(inputs, (state.params, state.batch_stats))
        key = jax.random.fold_in(_step_key(state), state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, lax.axis_index(axis_name))
        augment_key, dropout_key = jax.random.split(key)
        if mix is not None:
            augment_key, mix_key = jax.random.split(augment_key)
        if augment is not None:
            inputs = augment(augment_key, inputs)
        if mix is not None:
            inputs, labels = mix(mix_key, inputs, labels)
        batch = inputs, labels

        frozen, scale = frozen_paths(state.opt_state), state.loss_scale

        def objective(trained, inputs, labels, key):
            outputs, updates = apply(
                model,
                {"params": fill(trained, params), "batch_stats": stats, **carried},
                inputs,
                train=True,
                mutable=["batch_stats", *carried],
                rngs={"dropout": key},
            )
            if scale:
                outputs = loss_scaling.widened(outputs)
            value = loss(outputs, labels)
            measured = {"loss": value, **metrics(outputs, labels)}
            value = value * scale.scale if scale else value
            return value, (updates.get("batch_stats", {}), measured, updates.get("carry", ()))

        def gradients(inputs, labels, key):
            trained = without(params, frozen)
            grads, others = jax.grad(objective, has_aux=True)(trained, inputs, labels, key)
            return varying_like(inputs, (grads, *others))

        if accumulate == 1:
            results = gradients(inputs, labels, dropout_key)
        else:
            keys = jax.random.split(dropout_key, accumulate)
            results = mean_over_parts(gradients, *parts_of(batch, accumulate), keys)
        grads, new_stats, measured, carry = results
        grads = loss_scaling.unscaled(scale, grads) if scale else grads
        finite = loss_scaling.all_finite(grads, axis_name) if scale else jnp.array(True)
        if axis_name is not None:
            grads = combine(grads, axis_name)
            new_stats, measured = lax.pmean((new_stats, measured), axis_name)
        if gradient_norm:
            measured = measured | {"gradient_norm": optax.tree.norm(grads)}

        grads = fill(grads, jax.tree.map(jnp.zeros_like, state.params))
        updates, opt_state = optax.with_extra_args_support(optimizer).update(
            grads, state.opt_state, state.params, value=measured["loss"]
        )
        new_params = optax.apply_updates(state.params, updates)
        new_params = fill(without(new_params, frozen), state.params)
        after = State(state.step + 1, new_params, new_stats, opt_state, state.key, carry, scale)
        watched = Watched(new_stats, measured["loss"], grads, new_params)
        if scale:
            next_scale = loss_scaling.adjusted(scale, finite)
            skip = ~finite & (next_scale.scale < scale.scale)
            after = _select(skip, state._replace(step=after.step), after)
            after = after._replace(loss_scale=next_scale)
            kept = jax.tree.map(lambda g: jnp.where(skip, 0, g), grads)
            watched = Watched(after.batch_stats, measured["loss"], kept, after.params)
            measured |= {"loss_scale": scale.scale, "overflow": skip.astype(jnp.float32)}
        elif optax.tree.get_all_with_path(opt_state, optax.ApplyIfFiniteState.__name__):
            finite = _first_nonfinite(watched) < 0
            kept_stats = _select(finite, new_stats, state.batch_stats)
            after = after._replace(
                batch_stats=kept_stats, carry=_select(finite, carry, state.carry)
            )
            watched = Watched(
                kept_stats, jnp.zeros(()), jax.tree.map(jnp.zeros_like, grads), new_params
            )
        bad = _first_nonfinite(watched)
        return _select(bad < 0, after, state), measured | {"nonfinite": bad}

    step.diagnose = functools.partial(  # pyright: ignore[reportFunctionMemberAccess]
        diagnose, model, loss=loss, augment=augment, mix=mix
    )
    step.augment = augment  # pyright: ignore[reportFunctionMemberAccess]
    step.learning_rate = getattr(optimizer, "learning_rate", None)  # pyright: ignore[reportFunctionMemberAccess]
    step.check = check  # pyright: ignore[reportFunctionMemberAccess]
    return step


def leaf_name(state: State, number: int) -> str:
    """Return the name of the leaf whose number a step's metric "nonfinite" gives."""
    tree = Watched(state.batch_stats, state.step, state.params, state.params)
    return jax.tree_util.keystr(jax.tree_util.tree_leaves_with_path(tree)[number][0])[1:]


def _step_key(state: State) -> jax.Array:
    return jax.random.fold_in(state.key, 1)


def _first_nonfinite(tree: Any) -> jax.Array:
    """Return the index of the first leaf that holds a number that is not finite, or -1."""
    bad = jnp.stack([~jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)])
    return jnp.where(bad.any(), bad.argmax(), -1).astype(jnp.int32)


def _select(condition: jax.Array, new: Any, old: Any) -> Any:
    """Return the new leaves, in the dtypes of the old, or the old ones.

    In 64 bits running statistics of wide activations would otherwise become wide themselves.
    """

    def select(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(condition, a if a.dtype == b.dtype else a.astype(b.dtype), b)

    return jax.tree.map(select, new, old)
