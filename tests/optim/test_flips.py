"""Shares of flipped signs, counted by hand."""

import jax
import jax.numpy as jnp
import optax
import pytest

from nnlab.errors import InputError
from nnlab.optim import bop, flipped, flipped_signs, measure_flips

PARAMS = {
    "Conv_0": {"binary_kernel": jnp.array([0.5, -0.5, 0.0, -0.1]), "bias": jnp.array([1.0])},
    "Dense_0": {"binary_kernel": jnp.array([1.0, -1.0])},
}


def updates(first, second):
    return {
        "Conv_0": {"binary_kernel": jnp.array(first), "bias": jnp.array([-2.0])},
        "Dense_0": {"binary_kernel": jnp.array(second)},
    }


def test_latent_weights_count_by_their_signs():
    optimizer = optax.chain(optax.scale(1.0), measure_flips())
    state, params = optimizer.init(PARAMS), PARAMS
    assert flipped_signs(state) == {
        "Conv_0/binary_kernel": (0, 0),
        "Dense_0/binary_kernel": (0, 0),
    }
    step = jax.jit(optimizer.update)
    # The first falls below 0, the last rises to 0, whose sign is +1 as that of the third.
    given = updates([-0.6, 0.4, 0.0, 0.1], [0.5, 0.5])
    passed, state = step(given, state, params)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), passed, given))
    assert flipped_signs(state) == {
        "Conv_0/binary_kernel": (0.5, 0.5),
        "Dense_0/binary_kernel": (0, 0),
    }
    params = optax.apply_updates(params, passed)  # -0.1, -0.1, 0, 0 and 1.5, -0.5
    passed, state = step(updates([0.2, 0.2, -0.1, -0.1], [-2.0, 0.0]), state, params)
    found = flipped_signs(state)
    assert found == {"Conv_0/binary_kernel": (1, 0.75), "Dense_0/binary_kernel": (0.5, 0.25)}
    # Over both steps the first and the last of four are back.
    shares = flipped(PARAMS, optax.apply_updates(params, passed))
    assert {k: float(v) for k, v in shares.items()} == {
        "Conv_0/binary_kernel": 0.5,
        "Dense_0/binary_kernel": 0.5,
    }


def test_weights_of_bop_flip_where_the_average_says_so():
    params = {"binary_kernel": jnp.array([1.0, 1.0, -1.0, -1.0])}
    optimizer = optax.chain(bop(threshold=0.5, gamma=1.0), measure_flips())
    grads = {"binary_kernel": jnp.array([1.0, 0.25, 1.0, -1.0])}  # flips the first and the last
    _, state = optimizer.update(grads, optimizer.init(params), params)
    assert flipped_signs(state) == {"binary_kernel": (0.5, 0.5)}


def test_other_kinds_of_kernels():
    params = {"adder_kernel": jnp.array([1.0, -1.0])}
    with pytest.raises(InputError, match="has no kernel of kind binary; give measure_flips"):
        measure_flips().init(params)
    state = measure_flips(["adder"]).init(params)
    assert flipped_signs(state).keys() == {"adder_kernel"}
    with pytest.raises(InputError, match="holds 0 counts of flips"):
        flipped_signs(optax.sgd(0.1).init(params))
    with pytest.raises(InputError, match="kernels before and after differ"):
        flipped(params, {"adder_kernel": jnp.ones(3)}, ["adder"])
