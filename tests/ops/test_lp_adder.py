"""Lp adder products: values and true gradients at every p, and what they are at 1 and 2."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.ops.adder import adder_conv
from nnlab.ops.lp_adder import lp_adder_conv
from nnlab.ops.squared_distance import squared_distance_conv
from nnlab.testing import check_gradient_rule, image_windows

OPTIONS: Any = dict(strides=(2, 1), padding=((1, 0), (2, 1)), kernel_dilation=(2, 1))


def normal(seed, *shape) -> Any:
    return np.asarray(np.random.default_rng(seed).normal(size=shape), np.float32)


# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = functools.partial(jax.jit, compiler_options=QUICK)
X, KERNEL = normal(0, 2, 5, 4, 2), normal(1, 2, 3, 2, 3)


def power_sum(x, kernel, p, **options):
    d = image_windows(x, kernel.shape, **options)[..., None] - kernel
    return -(jnp.abs(d) ** p).sum((3, 4, 5))


def passes(op, x, kernel, g, **options):
    y, pull = jax.vjp(functools.partial(op, **options), x, kernel)
    return y, *pull(g)


def cotangents(op, x, kernel, g, **options):
    return jit(functools.partial(passes, op, **options))(x, kernel, g)


def test_golden():
    # Distances 4 and -1 at p = 3/2: -(8 + 1). Slopes: 3/2 · 4^(1/2) = 3 and -3/2, for w of g = 2
    # times those, for x the negative.
    x, kernel = (
        np.asarray([5.0, 1.0], np.float32).reshape(1, 1, 1, 2),
        np.asarray([1.0, 2.0], np.float32).reshape(1, 1, 2, 1),
    )
    y, dx, dw = cotangents(
        lp_adder_conv, x, kernel, np.full((1, 1, 1, 1), 2.0, "f4"), p=np.asarray(1.5, np.float32)
    )
    # Off by (1 + p |ln d|) 2^-23 a term, below 4 such steps.
    exact = functools.partial(np.testing.assert_allclose, rtol=4 * 2**-23)
    exact(y.ravel(), [-9])
    exact(dx.ravel(), [-6, 3])
    exact(dw.ravel(), [6, -3])


@pytest.mark.slow
def test_rules_are_the_gradients():
    options: Any = dict(strides=(2, 1), padding=((1, 0), (0, 0)), kernel_dilation=(2, 1))
    potential = functools.partial(power_sum, p=1.5, **options)
    x, kernel = X[:, :3, :3, :1], KERNEL[:, :2, :1, :2]
    check_gradient_rule(
        functools.partial(lp_adder_conv, p=1.5, **options),
        [x, kernel],
        value=potential,
        potentials=[potential, potential],
        errors=[
            ([x[0], kernel], r"^lp_adder_conv expects x \[batch.*\(3, 3, 1\) and \(2, 2, 1, 2")
        ],
    )


def test_one_program_serves_every_p_and_is_the_gradient_at_each():
    traced = []

    @jax.jit
    def rule(p, x, kernel, g):
        traced.append(p)
        return passes(lp_adder_conv, x, kernel, g, p=p, padding="VALID")

    x, kernel = (np.asarray(a, np.float64) for a in (X[:, :3, :3], KERNEL[:, :2]))
    g = np.asarray(normal(2, 2, 2, 2, 3), np.float64)
    for p in (1.0, 1.001, 1.3, 1.9, 2.0):
        y, dx, dw = np.zeros((2, 2, 2, 3)), np.zeros_like(x), np.zeros_like(kernel)
        for n, i, j, o in np.ndindex(y.shape):
            for a, b, c in np.ndindex(2, 2, 2):
                d = x[n, i + a, j + b, c] - kernel[a, b, c, o]
                slope = p * np.sign(d) * abs(d) ** (p - 1)
                y[n, i, j, o] -= abs(d) ** p
                dw[a, b, c, o] += g[n, i, j, o] * slope
                dx[n, i + a, j + b, c] -= g[n, i, j, o] * slope
        operands = (np.asarray(a, np.float32) for a in (x, kernel, g))
        for got, wanted in zip(rule(jnp.float32(p), *operands), (y, dx, dw), strict=True):
            # At most 12 terms below 16 in magnitude: each off by less than 8 units of 2^-23 of its
            # size, and every partial sum by half of one.
            np.testing.assert_allclose(got, wanted, rtol=0, atol=12 * 16 * 10 * 2**-23)
    assert len(traced) == 1


@pytest.mark.parametrize("p", [pytest.param(1.0, marks=pytest.mark.slow), jnp.array(1.0)])
def test_at_1_it_is_the_adder_with_its_sign_rules(p):
    g = normal(2, *jax.eval_shape(functools.partial(adder_conv, **OPTIONS), X, KERNEL).shape)
    ours = cotangents(lp_adder_conv, X, KERNEL, g, p=p, **OPTIONS)
    rules = {"filter_rule": "sign", "input_rule": "sign"}
    for got, wanted in zip(
        ours, cotangents(adder_conv, X, KERNEL, g, **rules, **OPTIONS), strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


def test_at_2_it_is_the_squared_distance():
    g = normal(2, *jax.eval_shape(functools.partial(adder_conv, **OPTIONS), X, KERNEL).shape)
    expected = cotangents(squared_distance_conv, X, KERNEL, g, **OPTIONS)
    ours = cotangents(lp_adder_conv, X, KERNEL, g, p=2, **OPTIONS)
    for got, wanted in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_vmap_over_p_is_a_loop_and_p_gets_no_gradient():
    ps = np.asarray([1.0, 1.5], np.float32)

    def y(p):
        return lp_adder_conv(X, KERNEL, p=p, **OPTIONS)

    each = jit(y)
    together, apart = jit(jax.vmap(y))(ps), np.stack([each(p) for p in ps])
    np.testing.assert_allclose(together, apart, rtol=1e-6)  # another order of the sums
    assert jit(jax.grad(lambda p: y(p).sum()))(ps[1]) == 0


@pytest.mark.slow
def test_nothing_of_positions_by_inputs_by_filters_exists():
    x, kernel = normal(0, 16, 12, 12, 16), normal(1, 1, 2, 16, 32)

    def gradients(x, kernel, g, p):
        return passes(lp_adder_conv, x, kernel, g, p=p)

    g, p = normal(2, 16, 12, 12, 32), jnp.array(1.5)
    memory = jax.jit(gradients).lower(x, kernel, g, p).compile().memory_analysis()
    assert memory is not None
    # A few images and outputs, against 16 · 12 · 12 · 16 · 32 numbers a tap.
    assert memory.temp_size_in_bytes < 10 * (x.nbytes + g.nbytes) < 4 * 16 * 144 * 16 * 32


def test_a_distance_of_0_is_no_nan():
    x, kernel = np.zeros((1, 1, 1, 1), np.float32), np.zeros((1, 1, 1, 1), np.float32)
    for got in cotangents(
        lp_adder_conv, x, kernel, np.ones((1, 1, 1, 1), np.float32), p=jnp.array(1.2)
    ):
        assert got.item() == 0


@pytest.mark.parametrize(
    ("p", "words"),
    [
        (0.5, "p from 1 to 2, not 0.5"),
        (3, "not 3"),
        (np.ones(2, np.float32), r"a scalar p, not .* \(2,\)"),
    ],
)
def test_errors_name_p(p, words):
    with pytest.raises(ValueError, match=words):
        lp_adder_conv(X, KERNEL, p=p)
