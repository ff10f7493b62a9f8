"""Connections of units against Jacobians and against counts by hand."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.arithmetics import ADDER, FLOAT
from nnlab.classics.topologies import Local, connected, networks, units
from nnlab.errors import InputError
from nnlab.ops.adder import adder_conv
from nnlab.ops.convolution import conv

KEY = jax.random.key(0)
COUNTS = {  # of float networks: connections forward and back, weights
    "feed-forward": (4 * 5 + 5 * 3, 0, 35),
    "feedback": (3 * 4 + 4 * 2, 4 * 4, 36),
    "fully connected": (8 * 6, 0, 48),
    "locally connected": (6 * 3, 0, 18),
    "convolution": (6 * 3, 0, 3),
    "sparsely connected": (6 * 4, 0, 48),
}


def found(arithmetic, product, name):
    model, inputs = networks(arithmetic, product)[name]
    variables = model.init(KEY, jnp.zeros(inputs.shape))
    return units(KEY, model, variables, inputs), model, variables, inputs


def jacobian(model, variables, inputs):
    """Where the derivative of any of some random inputs is not zero, in float64."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables)
        points = jnp.asarray(np.random.default_rng(0).normal(size=(8, *inputs.shape)))
        every = jax.vmap(jax.jacrev(lambda x: model.apply(wide, x).ravel()))(points)
        return np.any(np.asarray(every).reshape(8, -1, inputs.size) != 0, 0).T


def test_connections_of_a_function():
    mask = np.random.default_rng(0).random((5, 4)) < 0.5
    small = jnp.where(mask, -1e-3, 0.0)
    np.testing.assert_array_equal(connected(KEY, lambda x: jnp.sign(x @ small), (5,)), mask)


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_counts_by_hand(name):
    forward, back, weights = COUNTS[name]
    network, *rest = found(FLOAT, conv, name)
    numbers = [(int(link.connected.sum()), link.feedback) for link in network.links]
    assert sum(number for number, feedback in numbers if not feedback) == forward
    assert sum(number for number, feedback in numbers if feedback) == back
    assert sum(link.weights for link in network.links) == weights
    if len(network.links) == 1:
        np.testing.assert_array_equal(network.links[0].connected, jacobian(*rest))


@pytest.mark.slow
def test_a_feedback_network_follows_its_program():
    network, *_ = found(FLOAT, conv, "feedback")
    assert network.groups == (3, 4, 2)
    assert [link[1:4] for link in network.links] == [(0, 1, False), (1, 1, True), (1, 2, False)]


@pytest.mark.slow
def test_zeros_are_connections_of_an_adder():
    network, *rest = found(ADDER, adder_conv, "sparsely connected")
    assert network.links[0].connected.all() and jacobian(*rest).all()


@pytest.mark.slow
def test_local_is_as_flax_has_it():
    x = jax.random.normal(KEY, (2, 8))
    flax: Any = nn.ConvLocal(1, (3,), padding="VALID", use_bias=False)
    variables = flax.init(KEY, x[..., None])
    kernel = variables["params"]["kernel"]  # [places, window, 1]
    own: Any = Local(3)
    (names, shape), *rest = jax.tree_util.tree_leaves_with_path(own.init(KEY, x))
    assert not rest and shape.shape == kernel.shape
    tree = {names[-1].key: kernel}
    for name in reversed(names[:-1]):
        tree = {name.key: tree}
    theirs = flax.apply(variables, x[..., None])[..., 0]
    np.testing.assert_allclose(own.apply(tree, x), theirs, atol=1e-6)
    pairs: Any = ((flax, variables), (own, tree))
    of_flax, of_own = (functools.partial(each.apply, v) for each, v in pairs)
    np.testing.assert_array_equal(
        connected(KEY, of_flax, (1, 8, 1)), connected(KEY, of_own, (1, 8))
    )


@pytest.mark.slow
def test_networks_of_other_kinds_are_named():
    class Several(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Sum()(x, x)

    class Sum(nn.Module):
        @nn.compact
        def __call__(self, x, y):
            return x + y * self.param("w", nn.initializers.ones, ())

    x = jnp.ones((1, 2))
    model = Several()
    with pytest.raises(InputError, match="has 2 inputs; expected one"):
        units(KEY, model, model.init(KEY, x), x)
    pool = nn.Sequential([nn.Dense(4), lambda x: x[:, ::2], nn.Dense(2)])
    with pytest.raises(InputError, match="layers_2 connects 2 units where 4"):
        units(KEY, pool, pool.init(KEY, x), x)
