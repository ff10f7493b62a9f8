"""Groups against XLA's grouped convolution, against one layer a group, and in every arithmetic."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab import kernels
from nnlab.arithmetics import (
    ADDER,
    FLOAT,
    NAMED,
    lp_adder,
)
from nnlab.errors import InputError
from nnlab.layers import GroupedConv
from nnlab.ops.adder import adder_conv
from nnlab.ops.convolution import conv

# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = functools.partial(jax.jit, compiler_options=QUICK)
# One of each kind: two arrays of weights, draws at random, a state, errors in a format.
KINDS = {"shift_ps", "binary_connect_stochastic", "lp_adder", "posit8"}
EVERY = [
    pytest.param(name, marks=[] if name in KINDS else pytest.mark.slow)
    for name in (*NAMED, "lp_adder")
]


def normal(seed, *shape) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X: Any = normal(0, 2, 7, 6, 6)


def test_float_groups_are_those_of_xla():
    layer: Any = GroupedConv(FLOAT.conv, 3, 12, (3, 2), strides=2, padding=1, use_bias=True)
    shapes: Any = jax.eval_shape(layer.init, jax.random.key(1), X)["params"]["Conv_0"]
    assert jax.tree.map(jnp.shape, shapes) == {"kernel": (3, 3, 2, 2, 4), "bias": (3, 4)}
    bias = np.arange(12, dtype=np.float32)
    params = {"kernel": normal(1, 3, 3, 2, 2, 4) / 4, "bias": bias.reshape(3, 4)}
    kernel = np.moveaxis(params["kernel"], 0, -2).reshape(3, 2, 2, 12)
    theirs = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(2, 2),
        padding=((1, 1), (1, 1)),
        feature_group_count=3,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    y: Any = jit(layer.apply)({"params": {"Conv_0": params}}, X)
    np.testing.assert_allclose(y, jit(theirs)(X, kernel) + bias, rtol=0, atol=1e-5)
    # He initialisation by the inputs that a filter has: 2 of a group in 6 pixels.
    wide: Any = jit(GroupedConv(FLOAT.conv, 3, 3000, (3, 2)).init)(jax.random.key(1), X)["params"]
    assert np.var(wide["Conv_0"]["kernel"]) == pytest.approx(2 / 12, rel=0.02)


def test_adder_groups_and_their_gradients_are_one_layer_a_group():
    layer: Any = GroupedConv(ADDER.conv, 2, 4, 3)
    kernels, g = normal(1, 2, 3, 3, 3, 2), normal(2, 2, 7, 6, 4)

    def in_turn(kernels, x):
        parts = zip(kernels, jnp.split(x, 2, axis=-1), strict=True)
        return jnp.concatenate([adder_conv(part, kernel) for kernel, part in parts], axis=-1)

    def grouped(kernels, x):
        y: Any = layer.apply({"params": {"AdderConv_0": {"adder_kernel": kernels}}}, x)
        return y

    def passes(fn):
        y, pull = jax.vjp(fn, kernels, X)
        return y, *pull(g)

    compiled = jit(passes, static_argnums=0)
    for ours, theirs in zip(compiled(grouped), compiled(in_turn), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arithmetic", "op", "size"),
    [(ADDER, adder_conv, (3,)), pytest.param(FLOAT, conv, (2, 1, 2), marks=pytest.mark.slow)],
)
def test_groups_with_dilation_along_one_axis_to_three(arithmetic, op, size):
    x = normal(0, 2, *(5, 4, 3)[: len(size)], 4)
    options: Any = dict(strides=(2, 1, 1)[: len(size)], kernel_dilation=(2, 1, 2)[: len(size)])
    layer: Any = GroupedConv(arithmetic.conv, 2, 6, size, **options)
    variables = jax.eval_shape(layer.init, jax.random.key(1), x)
    kernels = normal(2, 2, *size, 2, 3)
    y = jit(layer.apply)(jax.tree.map(lambda leaf: kernels.reshape(leaf.shape), variables), x)

    @jit
    def in_turn(kernels, x):
        parts = zip(kernels, jnp.split(x, 2, axis=-1), strict=True)
        return jnp.concatenate([op(part, kernel, **options) for kernel, part in parts], axis=-1)

    expected = in_turn(kernels, x)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_every_arithmetic_has_groups(name):
    arithmetic = NAMED.get(name, lp_adder(optax.constant_schedule(1.5)))
    layer: Any = GroupedConv(arithmetic.conv, 2, 4, 2)
    keys: Any = dict(zip(("params", "dropout"), jax.random.split(jax.random.key(1)), strict=True))

    def gradients(x):
        variables: Any = layer.init(keys, x)

        def total(params):
            inputs = variables | {"params": params}
            y, _ = layer.apply(inputs, x, rngs=keys, mutable=["batch_stats"])
            assert y.shape == (2, 7, 6, 4)
            return y.sum()

        return jax.grad(total)(variables["params"])

    with kernels.use("cpu"):  # nothing to trace for other platforms
        found = jax.eval_shape(gradients, X)
    assert all(leaf.shape[0] == 2 for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize(("groups", "features"), [(4, 8), (2, 5), (0, 4), (-2, 4)])
def test_groups_that_do_not_divide_are_named(groups, features):
    words = f"^groups must divide 6 inputs and {features} features, not {groups}\\."
    with pytest.raises(InputError, match=words):
        GroupedConv(FLOAT.conv, groups, features, 3).init(jax.random.key(0), X)
