"""What holds for every transformation: it goes wherever one of optax's own goes."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization

from nnlab import optim

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
    "extra arguments": lambda inner: optax.chain(
        inner, optax.contrib.reduce_on_plateau(patience=1)
    ),
    "several steps": lambda inner: optax.MultiSteps(inner, 2).gradient_transformation(),
    "not finite": lambda inner: optax.apply_if_finite(inner, 3),
    "partition": lambda inner: optax.partition(
        {"all": inner}, lambda p: jax.tree.map(lambda _: "all", p)
    ),
    "masked": lambda inner: optax.masked(inner, lambda p: jax.tree.map(lambda _: True, p)),
}


@every
@pytest.mark.parametrize("around", AROUND)
def test_inside_others_and_in_narrow_types(name, around):
    dtype = jnp.bfloat16 if around == "bfloat16" else jnp.float32
    params = jax.tree.map(lambda w: w.astype(dtype), TREES["dict"])
    optimizer = optax.with_extra_args_support(AROUND[around](OPTIMISERS[name]()))
    state = jax.eval_shape(optimizer.init, params)
    value = jnp.float32(1)
    updates, after = jax.eval_shape(
        lambda s: optimizer.update(params, s, params, value=value), state
    )
    same((params, state), (updates, after))


@every
def test_seeds_are_mapped_and_a_state_is_written_and_read(name):
    optimizer, params = OPTIMISERS[name](), TREES["dict"]
    many = jax.tree.map(lambda w: jnp.stack([w, w]), params)
    jax.eval_shape(lambda p: jax.vmap(optimizer.update)(p, jax.vmap(optimizer.init)(p), p), many)
    state = optimizer.init(params)
    read = serialization.from_bytes(state, serialization.to_bytes(state))
    jax.tree.map(np.testing.assert_array_equal, state, read)


@pytest.mark.parametrize(
    ("maker", "static", "options"),
    [
        (optim.adder_rate, (), {"eta": 0.2}),
        (optim.adder_recipe, ("steps",), {"steps": 10, "learning_rate": 0.1}),
        (optim.deep_recipe, ("steps",), {"steps": 10, "clip": 1.0}),
        (optim.average_weights, (), {"decay": 0.9}),
        (optim.bop, (), {"threshold": 1e-8, "gamma": 1e-4}),
        (optim.ef_sign_sgd, (), {"learning_rate": 0.1}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_hyperparameters_may_be_traced(maker, static, options):
    params = TREES["dict"]
    optimizer = optax.inject_hyperparams(maker, static_args=static)(**options)
    state = optimizer.init(params)
    updates, after = jax.eval_shape(optimizer.update, params, state, params)
    same((params, state), (updates, after))


def test_a_part_of_a_recipe_gets_the_loss():
    part = optax.chain(optax.sgd(1.0), optax.contrib.reduce_on_plateau(patience=1, factor=0.5))
    optimizer: Any = optim.adder_recipe(10, parts={"float": part})
    params = {"kernel": W}
    state = optimizer.init(params)
    for _ in range(4):
        updates, state = optimizer.update(params, state, params, value=jnp.float32(1))
    assert abs(updates["kernel"][0, 0]) < 1
