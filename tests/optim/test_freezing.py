"""Frozen parameters keep their bits, cost no state, and the others train as if they were alone."""

import re
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from nnlab.errors import InputError
from nnlab.optim import (
    adder_recipe,
    average_weights,
    averaged_weights,
    freeze,
)
from nnlab.optim.freezing import frozen_paths
from nnlab.runs import restore, save

HELD = {"body/adder_kernel", "body/scale"}
PARAMS: Any = {
    "body": {"adder_kernel": jnp.array([[0.3, -0.0], [1.5, -2.0]]), "scale": jnp.float32(-0.0)},
    "head": {"kernel": jnp.array([1.0, -3.0]), "adder_kernel": jnp.array([0.5, 2.0])},
}


def body(path):
    return path.startswith("body/")


def bits(tree):
    return jax.tree.map(lambda a: np.asarray(a).tobytes(), tree)


def steps(optimizer, params, count=5) -> Any:
    """Parameters and state after steps on gradients that are all ones."""

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(count):
        params, state = step(params, state)
    return params, state


@pytest.mark.parametrize(
    "optimizer",
    [
        adder_recipe(10),
        optax.adamw(0.1, weight_decay=0.1),
        optax.chain(optax.clip_by_global_norm(0.1), adder_recipe(10), average_weights()),
        optax.MultiSteps(optax.sgd(0.1, 0.9), 2).gradient_transformation(),
        optax.apply_if_finite(optax.sgd(0.1, 0.9), 3),
    ],
)
def test_the_others_train_as_if_alone(optimizer):
    params, state = steps(freeze(optimizer, body), PARAMS)
    alone, state_alone = steps(optimizer, {"head": PARAMS["head"]})
    assert bits(params["body"]) == bits(PARAMS["body"])
    assert bits(params["head"]) == bits(alone["head"]) != bits(PARAMS["head"])
    sizes = [[leaf.nbytes for leaf in jax.tree.leaves(s)] for s in (state, state_alone)]
    assert sizes[0] == sizes[1]  # and no array says what is frozen


def test_minimises_a_parabola_on_the_rest():
    chex.clear_trace_counter()
    optimizer = freeze(optax.sgd(0.1, 0.5), re.compile("body/").match)
    params: Any = PARAMS
    state = optimizer.init(params)
    update: Any = jax.jit(chex.assert_max_traces(optimizer.update, n=1))
    for _ in range(60):
        grads = jax.tree.map(lambda p: p - 1, params)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    assert bits(params["body"]) == bits(PARAMS["body"])
    # The roots of z^2 - 1.4 z + 0.5 have modulus sqrt(1/2), 1e-9 in 60 steps; float32 at 1 rounds
    # to 6e-8 a step.
    chex.assert_trees_all_close(
        params["head"], jax.tree.map(jnp.ones_like, params["head"]), atol=1e-6
    )


NESTED = freeze(freeze(optax.sgd(0.1, 0.9), lambda path: "body/a" in path), lambda p: "sc" in p)


@pytest.mark.parametrize(
    "around",
    [
        lambda frozen: frozen,
        lambda frozen: optax.chain(optax.clip_by_global_norm(1.0), frozen, optax.scale(2.0)),
        lambda frozen: optax.apply_if_finite(frozen, 3),
        lambda frozen: optax.partition({"a": frozen}, {"body": "a", "head": "a"}),
        lambda frozen: NESTED,
    ],
)
def test_is_found_in_whatever_stands_around(around):
    optimizer = around(freeze(optax.sgd(0.1, 0.9), body))
    params, state = steps(optimizer, PARAMS)
    assert frozen_paths(state) == HELD
    assert bits(params["head"]) != bits(PARAMS["head"])
    chex.assert_trees_all_equal(params["body"], PARAMS["body"])  # -0 may have become 0


def test_a_path_is_the_same_in_a_box():
    """`nnx.Optimizer` makes the state of boxes, and updates what is in them."""
    boxes = {"a": {"kernel": nnx.Param(jnp.ones(2))}, "b": jnp.ones(2)}
    state = freeze(optax.sgd(1.0), lambda path: path == "a/kernel").init(boxes)
    assert frozen_paths(state) == {"a/kernel"}


def test_without_it_nothing_is_frozen():
    assert frozen_paths(optax.sgd(0.1, 0.9).init(PARAMS)) == set()


def test_the_average_is_of_the_others_and_filled_in():
    optimizer = freeze(optax.chain(optax.sgd(0.1), average_weights(0.5)), body)
    params, state = steps(optimizer, PARAMS, 2)
    average = averaged_weights(state, params)
    assert bits(average["body"]) == bits(PARAMS["body"])
    # Weights w - 0.1 and w - 0.2, by (1/2 · first + second) / (1/2 + 1): w - 1/6.
    np.testing.assert_allclose(average["head"]["kernel"], [1 - 1 / 6, -3 - 1 / 6], rtol=1e-6)
    with pytest.raises(InputError, match="lacks the frozen parameters"):
        averaged_weights(state)


def test_a_checkpoint_has_no_arrays_of_the_frozen(tmp_path):
    optimizer = freeze(optax.sgd(0.1, 0.9), body)
    _, state = steps(optimizer, PARAMS)
    save(tmp_path / "state", state)
    found = restore(tmp_path / "state", optimizer.init(PARAMS))
    chex.assert_trees_all_equal(found, state)
    assert frozen_paths(found) == HELD
    other = freeze(optax.sgd(0.1, 0.9), lambda path: path == "body/scale")
    with pytest.raises(InputError, match="adder_kernel"):
        restore(tmp_path / "state", other.init(PARAMS))


@pytest.mark.parametrize(
    ("predicate", "words"),
    [
        (lambda path: path.startswith("boby"), "none of the 4 parameters .* body/adder_kernel, "),
        (lambda path: True, "all of the 4 parameters"),
    ],
)
def test_a_choice_of_none_or_all_is_a_mistake(predicate, words):
    with pytest.raises(InputError, match=words) as caught:
        freeze(optax.sgd(0.1), predicate).init(PARAMS)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_the_state_of_another_optimizer_is_refused():
    optimizer = freeze(optax.sgd(0.1), body)
    with pytest.raises(InputError, match="state tuple of another optimizer"):
        optimizer.update(PARAMS, optax.sgd(0.1).init(PARAMS), PARAMS)
