"""Derivatives of every order: against those that JAX derives, and the same in every body."""

import contextlib
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nnlab import kernels
from nnlab.costs import count
from nnlab.errors import InputError
from nnlab.ops.adder import adder_conv
from nnlab.ops.binary import binary_weights, sign_ste
from nnlab.ops.convolution import conv
from nnlab.ops.estimators import ste_sign
from nnlab.ops.pooling import max_pool
from nnlab.ops.products import signed_conv
from nnlab.ops.response_normalization import local_response_norm
from nnlab.ops.scaled import scaled_conv, signs_by_filter

RNG = np.random.default_rng(0)
X, DX = np.asarray(RNG.normal(size=(2, 1, 3, 3, 2)), np.float32)
W, DW = np.asarray(RNG.normal(size=(2, 2, 2, 2, 2)), np.float32)


def derived(x, kernel, **window):
    order = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (window["strides"],) * 2, "SAME", dimension_numbers=order
    )


def penalty(op):
    """The squared gradient of a loss, whose own gradient needs every second derivative."""

    def of(x, kernel):
        def loss(x, kernel):
            return jnp.sin(op(x, kernel, strides=2)).sum()

        return sum(jnp.vdot(g, g) for g in jax.grad(loss, (0, 1))(x, kernel))

    return of


@pytest.mark.parametrize("body", ["default", "xla"])
def test_a_float_convolution_has_both_modes_in_every_body(body):
    def several(op):
        def loss(x, kernel):
            return jnp.sin(op(x, kernel, strides=2)).sum()

        def in_a_loop(kernel):  # which JAX splits into parts that vary and parts that do not
            def step(total, x):
                return total + loss(x, kernel), None

            return lax.scan(step, 0.0, jnp.stack([X, DX]))[0]

        return {
            "forward": jax.jvp(loss, (X, W), (DX, DW)),
            "reverse over reverse": jax.grad(penalty(op), (0, 1))(X, W),
            "forward over reverse": jax.jvp(jax.grad(loss), (X, W), (DX, DW)),
            "mapped": jax.vmap(lambda v: jax.jvp(loss, (X, W), (v, DW))[1])(jnp.stack([X, DX])),
            "in a loop": jax.grad(lambda w: jnp.sum(jax.grad(in_a_loop)(w) ** 2))(W),
            "zero": jax.hessian(lambda x: op(x, W, strides=2).sum())(X),
        }

    with contextlib.nullcontext() if body == "default" else kernels.use(body):
        ours: Any = jax.jit(lambda: several(conv))()
    theirs = jax.jit(lambda: several(derived))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-4), ours, theirs)


@pytest.mark.parametrize("body", ["default", "cpu", "xla"])
def test_derivatives_are_counted_as_what_they_compute(body):
    def several(op):
        def loss(x, kernel):
            return jnp.sin(op(x, kernel, strides=2)).sum()

        forward = count(lambda: jax.jvp(loss, (X, W), (DX, DW)))
        return forward, count(lambda: jax.jvp(jax.grad(loss), (X, W), (DX, DW)))

    with contextlib.nullcontext() if body == "default" else kernels.use(body):
        ours = several(conv)
    assert ours == several(derived)


def test_a_rule_says_that_it_has_no_forward_mode():
    def mapped(x, kernel):
        return jax.vmap(lambda x: adder_conv(x[None], kernel))(x)

    def run(*tangents):
        return jax.jvp(mapped, (X, W), tangents)

    for compute in (run, jax.jit(run)):
        with pytest.raises(InputError, match="adder_conv has a gradient rule"):
            compute(DX, DW)


def held(value, potential):
    return potential + lax.stop_gradient(value - potential)


def scaled_signs(x):
    codes, scale = signs_by_filter(x)
    return conv(X, held(scale * codes, x))


@pytest.mark.parametrize(
    ("op", "reference"),
    [
        (sign_ste, lambda x: held(sign_ste(x), jnp.clip(x, -1, 1))),
        (binary_weights, lambda x: held(binary_weights(x), x)),
        (
            functools.partial(ste_sign, clip_value=0.5),
            lambda x: held(sign_ste(x), jnp.clip(x, -0.5, 0.5)),
        ),
        (
            lambda x: scaled_conv(X, x, product=signed_conv, quantizer=signs_by_filter),
            scaled_signs,
        ),
    ],
)
def test_second_derivatives_go_through_the_rule(op, reference):
    def second(op):
        def loss(x):
            return jnp.sin(1 + op(x)).sum()

        return jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(jax.grad(loss)(x)))))(W)

    np.testing.assert_allclose(second(op), second(reference), 1e-4, 1e-5)


def of_rules(filter_rule, input_rule):
    return penalty(functools.partial(adder_conv, filter_rule=filter_rule, input_rule=input_rule))


def test_the_native_bodies_of_the_adder_have_a_gradient_of_their_gradient():
    with kernels.use("cpu"):
        found = jax.eval_shape(jax.grad(of_rules("full", "clip")), X, W)  # traces it
    assert found.shape == X.shape


@pytest.mark.slow  # XLA takes long to compile the derivative of an unrolled sum
@pytest.mark.parametrize("rules", [("full", "clip"), ("sign", "sign"), ("full", "full")])
def test_a_gradient_of_the_adders_rule_is_the_same_in_every_body(rules):
    native = jax.jit(jax.grad(of_rules(*rules), (0, 1)))(X, W)
    with kernels.use("xla"):
        xla = jax.jit(jax.grad(of_rules(*rules), (0, 1)))(X, W)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-4), native, xla)


@pytest.mark.parametrize("size", [2, 3])
def test_the_maximum_of_a_window_has_both_modes(size):
    x, v = jnp.concatenate([X, X + DX], axis=1), jnp.concatenate([DX, X], axis=1)

    def several(pool):
        def loss(x):
            return jnp.sin(pool(x, (size, size), strides=(2, 2))).sum()

        return jax.jvp(loss, (x,), (v,)), jax.jvp(jax.grad(loss), (x,), (v,))

    ours, theirs = several(max_pool), several(nn.max_pool)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), ours, theirs)


def test_local_response_normalisation_has_both_modes():
    def written_out(x):  # two channels, of which each is the other's neighbour
        return x / (2 + 0.1 * jnp.sum(x * x, axis=-1, keepdims=True)) ** 0.75

    def several(norm):
        def loss(x):
            return jnp.sin(norm(x)).sum()

        return jax.jvp(loss, (X,), (DX,)), jax.jvp(jax.grad(loss), (X,), (DX,))

    ours = several(lambda x: local_response_norm(x, 5, 0.1))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), ours, several(written_out)
    )
