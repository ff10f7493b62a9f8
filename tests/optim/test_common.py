"""What holds for every transformation: it goes wherever one of optax's own goes."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx, serialization

from nnlab import optim
from nnlab.errors import InputError

W = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
OPTIMISERS = {
    "adder_rate": optim.adder_rate,
    "adder_recipe": lambda: optim.adder_recipe(10),
    "average_weights": optim.average_weights,
    "bop": optim.bop,
    "center_and_clip": optim.center_and_clip,
    "clip_latent_weights": optim.clip_latent_weights,
    "decay_pruned": lambda: optim.decay_pruned(1, 2),
    "deep_recipe": lambda: optim.deep_recipe(10),
    "ef_sign_sgd": lambda: optim.ef_sign_sgd(0.1),
    "error_feedback": lambda: optim.error_feedback(optim.scaled_sign()),
    "freeze": lambda: optim.freeze(optax.adam(0.1), lambda path: path.startswith(("0", "a"))),
    "glorot_rate": optim.glorot_rate,
    "prune": lambda: optim.prune(0.5),
    "rounded": lambda: optim.rounded(optax.adam(0.1)),
    "scaled_sign": optim.scaled_sign,
}
TREES = {
    "dict": {"a": {"kernel": W}, "b": {"adder_kernel": W}},
    "list": [W, W],
    "tuple in a dict": {"a": (W,), "b": {"binary_kernel": (W, W)}},
    "empty places": {"a": W, "b": W, "c": None, "d": optax.MaskedNode()},
    "boxes": {"a": {"kernel": nn.Partitioned(W, ("x", None))}, "b": {"kernel": W}},
    "nnx": nnx.State({"a": {"kernel": nnx.Param(W)}, "b": {"adder_kernel": nnx.Param(W)}}),
}
every = pytest.mark.parametrize("name", OPTIMISERS)


def same(before, after):
    """Both trees have one structure, and leaves of one shape and dtype."""
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


@every
@pytest.mark.parametrize("tree", TREES)
def test_any_tree_keeps_its_types_and_so_does_the_state(name, tree):
    optimizer, params = OPTIMISERS[name](), TREES[tree]
    state = jax.eval_shape(optimizer.init, params)
    updates, after = jax.eval_shape(optimizer.update, params, state, params)
    same((params, state), (updates, after))  # as a scan asks


AROUND = {
    "bfloat16": lambda inner: inner,
    "float64": lambda inner: inner,
    "extra arguments": lambda inner: optax.chain(
        inner, optax.contrib.reduce_on_plateau(patience=1)
    ),
    "several steps": lambda inner: optax.MultiSteps(inner, 2).gradient_transformation(),
    "not finite": lambda inner: optax.apply_if_finite(inner, 3),
    "not finite, in others": lambda inner: optax.chain(
        optax.MultiSteps(optax.apply_if_finite(inner, 3), 2).gradient_transformation()
    ),
    "partition": lambda inner: optax.partition(
        {"all": inner}, lambda p: jax.tree.map(lambda _: "all", p)
    ),
    "masked": lambda inner: optax.masked(inner, lambda p: jax.tree.map(lambda _: True, p)),
}


@every
@pytest.mark.parametrize("around", AROUND)
def test_inside_others_and_in_other_types(name, around):
    dtype = jnp.dtype(around if around in ("bfloat16", "float64") else "float32")
    with jax.enable_x64(around == "float64"):
        params = jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape, dtype), TREES["dict"])
        optimizer = optax.with_extra_args_support(AROUND[around](OPTIMISERS[name]()))
        state = jax.eval_shape(optimizer.init, params)
        value = jnp.float32(1)
        updates, after = jax.eval_shape(
            lambda p, s: optimizer.update(p, s, p, value=value), params, state
        )
        same((params, state), (updates, after))


@every
def test_parameters_are_found_in_a_state(name):
    state = jax.eval_shape(OPTIMISERS[name]().init, TREES["dict"])
    found = optax.tree.map_params(
        OPTIMISERS[name](), lambda _: 1, state, transform_non_params=lambda _: 0
    )
    shaped = [leaf.shape == W.shape for leaf in jax.tree.leaves(state)]
    assert sum(jax.tree.leaves(found)) == sum(shaped)


def test_states_are_donated_and_a_checkpoint_goes_on_alike(tmp_path):
    """All optimisers in one program, which is compiled once and scans."""
    every = {name: make() for name, make in OPTIMISERS.items()}

    def step(carry, _):
        params, states = carry
        for name, optimizer in every.items():
            updates, states[name] = optimizer.update(params[name], states[name], params[name])
            params[name] = optax.apply_updates(params[name], updates)
        return (params, states), None

    go_on = jax.jit(lambda carry: jax.lax.scan(step, carry, length=2)[0], donate_argnums=0)
    params = {name: jax.tree.map(lambda w: w / 3, TREES["dict"]) for name in every}
    begun = params, {name: optimizer.init(params[name]) for name, optimizer in every.items()}
    middle = go_on(begun)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(begun))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", middle)
        checkpointer.wait_until_finished()
        read = checkpointer.restore(tmp_path / "state", middle)
    jax.tree.map(np.testing.assert_array_equal, go_on(middle), go_on(read))


@every
def test_seeds_are_mapped_and_a_state_is_written_and_read(name):
    optimizer, params = OPTIMISERS[name](), TREES["dict"]
    many = jax.tree.map(lambda w: jnp.stack([w, w]), params)
    jax.eval_shape(lambda p: jax.vmap(optimizer.update)(p, jax.vmap(optimizer.init)(p), p), many)
    state = optimizer.init(params)
    read = serialization.from_bytes(state, serialization.to_bytes(state))
    jax.tree.map(np.testing.assert_array_equal, state, read)


RATES = ("binary_learning_rate", "shift_learning_rate")


@pytest.mark.parametrize(
    ("maker", "traced", "static"),
    [
        (optim.adder_rate, ("eta",), {}),
        (optim.adder_recipe, ("learning_rate", "momentum", "weight_decay", *RATES), {"steps": 9}),
        (optim.average_weights, ("decay",), {}),
        (optim.bop, ("threshold", "gamma"), {}),
        (optim.decay_pruned, ("decay",), {"n": 1, "m": 2}),
        (optim.deep_recipe, ("learning_rate", "clip", "adder_learning_rate", *RATES), {"steps": 9}),
        (optim.ef_sign_sgd, ("learning_rate",), {}),
        (optim.prune, ("schedule",), {"every": 2}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_hyperparameters_may_be_traced_and_mapped(maker, traced, static):
    params, options = TREES["dict"], dict.fromkeys(traced, 0.1)
    optimizer = optax.inject_hyperparams(maker, static_args=tuple(static))(**static, **options)
    state = optimizer.init(params)
    updates, after = jax.eval_shape(optimizer.update, params, state, params)
    same((params, state), (updates, after))

    def update(options):
        optimizer = maker(**static, **options)
        return optimizer.update(params, optimizer.init(params), params)

    many = jax.tree.map(lambda number: jnp.full(3, number), options)
    updates, _ = jax.eval_shape(jax.vmap(update), many)
    assert {leaf.shape for leaf in jax.tree.leaves(updates)} == {(3, *W.shape)}


def test_a_part_of_a_recipe_gets_the_loss():
    part = optax.chain(optax.sgd(1.0), optax.contrib.reduce_on_plateau(patience=1, factor=0.5))
    optimizer: Any = optim.adder_recipe(10, parts={"float": part})
    params = {"kernel": W}
    state = optimizer.init(params)
    for _ in range(4):
        updates, state = optimizer.update(params, state, params, value=jnp.float32(1))
    assert abs(updates["kernel"][0, 0]) < 1


@pytest.mark.parametrize(
    "make",
    [
        lambda x: optim.adder_rate(x),
        lambda x: optim.bop(x),
        lambda x: optim.prune(x),
        lambda x: optim.decay_pruned(decay=x),
        lambda x: optim.ef_sign_sgd(x),
        lambda x: optim.adder_recipe(10, x),
        lambda x: optim.adder_recipe(10, momentum=x),
        lambda x: optim.adder_recipe(10, weight_decay=x),
        lambda x: optim.deep_recipe(10, binary_learning_rate=x),
    ],
)
def test_a_hyperparameter_that_cannot_be_is_refused(make):
    for value in (-0.1, float("nan"), float("inf"), "fast"):
        with pytest.raises(InputError, match="must be a finite number from 0"):
            make(value)
    make(0.5)
