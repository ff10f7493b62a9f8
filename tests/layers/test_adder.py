"""Adder layers: their parameters, and that they are the op on those parameters, to the bit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.layers import AdderConv, AdderDense
from nnlab.ops.adder import adder_conv, adder_dense


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


IMAGES, VECTORS = normal(2, 7, 6, 3), normal(2, 4, 5)
OPTIONS = {"strides": (2, 1), "padding": ((1, 0), (0, 2)), "kernel_dilation": 2}


def shapes(variables):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name), variables)


@pytest.mark.parametrize(
    ("layer", "x", "shape"),
    [(AdderConv(4, (3, 2)), IMAGES, (3, 2, 3, 4)), (AdderDense(4), VECTORS, (5, 4))],
)
def test_parameters(layer, x, shape):
    init = jax.eval_shape(layer.init, jax.random.key(0), x)
    assert shapes(init) == {"params": {"adder_kernel": (shape, "float32")}}
    init = jax.eval_shape(
        layer.clone(use_bias=True, param_dtype=jnp.bfloat16).init, jax.random.key(0), x
    )
    assert shapes(init) == {
        "params": {"adder_kernel": (shape, "bfloat16"), "bias": ((4,), "bfloat16")}
    }


@pytest.mark.parametrize(
    ("layer", "x"), [(AdderConv(100, (3, 3)), jnp.ones((1, 4, 4, 100))), (AdderDense(300), 0)]
)
def test_weights_start_as_standard_normal(layer, x):
    x = jnp.ones((1, 300)) if isinstance(layer, AdderDense) else x
    w = np.asarray(layer.init(jax.random.key(0), x)["params"]["adder_kernel"], np.float64)
    assert w.size == 90_000
    # Five standard errors of the mean, the second and the fourth moment: variances 1, 2 and 96.
    bounds = 5 * np.sqrt(np.array([1, 2, 96]) / w.size)
    moments = np.array([w.mean(), np.square(w).mean(), (w**4).mean()])
    assert (np.abs(moments - [0, 1, 3]) < bounds).all(), moments


def test_another_initialiser():
    layer: Any = AdderDense(4, kernel_init=jax.nn.initializers.constant(0.5), use_bias=True)
    # Ones are half a unit from each of five weights.
    variables = layer.init(jax.random.key(0), jnp.ones(5))
    assert (layer.apply(variables, jnp.ones(5)) == -2.5).all()
    assert (variables["params"]["bias"] == 0).all()


@pytest.mark.parametrize(
    ("filter_rule", "input_rule"), [("full", "clip"), ("sign", "full"), ("full", "sign")]
)
@pytest.mark.parametrize("op", [adder_conv, adder_dense])
def test_values_and_gradients_are_those_of_the_op(op, filter_rule, input_rule):
    rules = {"filter_rule": filter_rule, "input_rule": input_rule}
    options = rules | OPTIONS if op is adder_conv else rules
    layer: Any = AdderConv(4, (3, 2), **options) if op is adder_conv else AdderDense(4, **options)
    x = IMAGES if op is adder_conv else VECTORS
    kernel = normal(3, 2, 3, 4) if op is adder_conv else normal(5, 4)

    y, pull = jax.vjp(lambda x, w: layer.apply({"params": {"adder_kernel": w}}, x), x, kernel)
    expected, pull_op = jax.vjp(lambda x, w: op(x, w, **options), x, kernel)
    np.testing.assert_array_equal(y, expected)
    g = normal(*y.shape)
    for ours, theirs in zip(pull(g), pull_op(g), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_defaults_are_the_rules_that_addernet_trains_with():
    kernel = jnp.array([[0.0], [0.0]])
    x = jnp.array([3.0, -0.5])

    def y(x, w):
        return AdderDense(1).apply({"params": {"adder_kernel": w}}, x)[0]

    dx, dw = jax.grad(y, argnums=(0, 1))(x, kernel)
    assert dx.tolist() == [-1.0, 0.5]  # w - x, clipped
    assert dw.tolist() == [[3.0], [-0.5]]  # x - w


@pytest.mark.parametrize(
    ("layer", "x", "op"),
    [
        (AdderConv(4, (3, 2), use_bias=True), IMAGES, adder_conv),
        (AdderDense(4, use_bias=True), VECTORS, adder_dense),
    ],
)
def test_bfloat16_computes_in_bfloat16_from_float32_parameters(layer, x, op):
    layer = layer.clone(dtype=jnp.bfloat16)
    init = jax.eval_shape(layer.init, jax.random.key(0), x)["params"]
    assert {leaf.dtype.name for leaf in init.values()} == {"float32"}
    params = {"adder_kernel": normal(*init["adder_kernel"].shape), "bias": normal(4)}
    y = layer.apply({"params": params}, x)
    expected = op(x.astype(jnp.bfloat16), params["adder_kernel"].astype(jnp.bfloat16))
    np.testing.assert_array_equal(y, expected + params["bias"].astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    grads = jax.eval_shape(jax.grad(lambda p: layer.apply({"params": p}, x).sum()), params)
    assert shapes(grads) == shapes(params)


@pytest.mark.parametrize(
    ("layer", "x", "words"),
    [
        (AdderConv(4, (3, 3)), IMAGES[0], r"adder_conv expects x \[batch.* not shapes \(7, 6, 3\)"),
        (AdderConv(4, (3,)), IMAGES, r"adder_conv expects x .* and \(3, 3, 4\)"),
        (AdderConv(4, (9, 1), padding="VALID"), IMAGES, "spans 9 pixels of height, but .* has 7"),
        (AdderDense(4).clone(input_rule="soft"), VECTORS, "input_rule must be .* not 'soft'"),
    ],
)
def test_errors_name_what_was_given(layer, x, words):
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(layer.init, jax.random.key(0), x)


def test_kernel_size_may_be_one_integer():
    square = jax.eval_shape(AdderConv(4, 3).init, jax.random.key(0), IMAGES)
    assert square["params"]["adder_kernel"].shape == (3, 3, 3, 4)
