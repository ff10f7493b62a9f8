"""Adder products: the values of equation (1), and each rule against its potential.

Where operands are "quarters", multiples of 1/4 of magnitude at most 2, all sums are exact in
float32 and comparisons ask for equality.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export

from nnlab import kernels
from nnlab.ops.adder import adder_conv, adder_dense
from nnlab.ops.convolution import conv
from nnlab.testing import check_gradient_rule, image_windows

EPS = 2.0**-23  # of float32


def l1(d):
    return -d * jnp.sign(d)  # -|d|, with slope 0 at 0, where JAX's `abs` has 1


def l2(d):
    return -(d**2) / 2


def huber(d):
    return -jnp.where(jnp.abs(d) < 1, d**2 / 2, jnp.abs(d) - 0.5)


POTENTIALS = {"full": l2, "sign": l1, "clip": huber}
RULES = [(f, i) for f in ("full", "sign") for i in ("clip", "full", "sign")]


def quarters(seed, *shape, dtype=jnp.float32) -> Any:
    return np.asarray(np.random.default_rng(seed).integers(-8, 9, shape) / 4, dtype)


def normal(seed, *shape) -> Any:
    return np.asarray(np.random.default_rng(seed).normal(size=shape), np.float32)


def dense_sum(phi, x, kernel):
    return phi(x[..., None] - kernel).sum(-2)


def conv_sum(phi, x, kernel, **options):
    return phi(image_windows(x, kernel.shape, **options)[..., None] - kernel).sum((3, 4, 5))


@functools.partial(jax.jit, static_argnums=0, static_argnames=("strides",))
def cotangents(op, x, kernel, g, **options):
    return jax.vjp(functools.partial(op, **options), x, kernel)[1](g)


def check(op, sum_of, args, filter_rule, input_rule, **options):
    check_gradient_rule(
        functools.partial(op, filter_rule=filter_rule, input_rule=input_rule, **options),
        args,
        value=functools.partial(sum_of, l1, **options),
        potentials=[
            functools.partial(sum_of, POTENTIALS[rule], **options)
            for rule in (input_rule, filter_rule)
        ],
        rtol=0,
        atol=0,
    )


def test_golden():
    # Row [1, 3] between zeros, filter [0.5, -1], stride 2: windows [0, 1] and [3, 0] give
    # -(0.5 + 2) = -2.5 and -(2.5 + 1) = -3.5; the padded pixels weigh 0.5 and 1. With g = [1, 2]:
    # dw = [1 * (0 - 0.5) + 2 * (3 - 0.5), 1 * (1 + 1) + 2 * (0 + 1)] = [4.5, 4],
    # dx = [1 * clip(-1 - 1), 2 * clip(0.5 - 3)] = [-1, -2].
    x, kernel = (
        np.asarray([1.0, 3.0], np.float32).reshape(1, 1, 2, 1),
        np.asarray([0.5, -1], np.float32).reshape(1, 2, 1, 1),
    )
    g, op = (
        np.asarray([1, 2], np.float32),
        functools.partial(adder_conv, strides=(1, 2), padding=((0, 0), (1, 1))),
    )

    @jax.jit
    def passes(x, kernel):
        y, pull = jax.vjp(op, x, kernel)
        return y, *pull(g.reshape(y.shape))

    y, dx, dw = passes(x, kernel)
    assert [np.ravel(a).tolist() for a in (y, dx, dw)] == [[-2.5, -3.5], [-1, -2], [4.5, 4]]


def test_value_is_brute_force_in_float64():
    x, kernel = normal(0, 2, 5, 4, 3), normal(1, 3, 2, 3, 4)
    padded = np.pad(np.float64(x), ((0, 0), (1, 1), (0, 1), (0, 0)))
    expected = np.zeros((2, 5, 4, 4))
    for n, i, j, o in np.ndindex(expected.shape):
        for a, b, c in np.ndindex(3, 2, 3):
            expected[n, i, j, o] -= abs(padded[n, i + a, j + b, c] - float(kernel[a, b, c, o]))
    # K = 18 terms of one sign: the relative error is below K * eps.
    np.testing.assert_allclose(jax.jit(adder_conv)(x, kernel), expected, rtol=18 * EPS, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("filter_rule, input_rule", RULES)
def test_dense_rules(filter_rule, input_rule):
    check(adder_dense, dense_sum, [quarters(0, 5, 3), quarters(1, 3, 4)], filter_rule, input_rule)


@pytest.mark.slow
@pytest.mark.parametrize("filter_rule, input_rule", RULES)
def test_conv_rules(filter_rule, input_rule):
    args = [quarters(0, 2, 5, 4, 2), quarters(1, 2, 3, 2, 3)]
    options = dict(strides=(2, 1), padding=((1, 0), (2, 1)), kernel_dilation=(2, 1))
    check(adder_conv, conv_sum, args, filter_rule, input_rule, **options)


@pytest.mark.slow
@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.data())
def test_conv_over_shapes_windows_dtypes_and_rules(convolutions, data):
    shape, kernel_shape, options = data.draw(convolutions)
    dtypes = data.draw(st.tuples(*[st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16])] * 2))
    filter_rule, input_rule = data.draw(st.sampled_from(RULES))
    x, kernel = quarters(0, *shape, dtype=dtypes[0]), quarters(1, *kernel_shape, dtype=dtypes[1])
    op = functools.partial(adder_conv, filter_rule=filter_rule, input_rule=input_rule, **options)
    out = jax.eval_shape(op, x, kernel)
    g = quarters(2, *out.shape, dtype=out.dtype)

    @jax.jit
    def expected(g, x, kernel):
        sums = [
            functools.partial(conv_sum, POTENTIALS[r], **options) for r in (input_rule, filter_rule)
        ]
        dx, dw = (cotangents(of, x, kernel, g)[i] for i, of in enumerate(sums))
        return conv_sum(l1, x, kernel, **options), dx, dw

    with jax.enable_x64(True):
        wanted = expected(*(np.asarray(a, np.float64) for a in (g, x, kernel)))
    results = op(x, kernel), *cotangents(op, x, kernel, g)
    dtypes = jnp.promote_types(*dtypes), *dtypes
    for result, dtype, exact in zip(results, dtypes, wanted, strict=True):
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, np.asarray(exact).astype(dtype))  # rounded once


@pytest.mark.parametrize("filter_rule, input_rule", [("full", "full"), ("sign", "clip")])
def test_long_sums_of_bfloat16_are_rounded_once(filter_rule, input_rule):
    g, x, kernel = (quarters(seed, 100, 100, dtype=jnp.bfloat16) for seed in range(3))
    op = functools.partial(adder_dense, filter_rule=filter_rule, input_rule=input_rule)
    d = np.asarray(x, np.float64)[..., None] - np.asarray(kernel, np.float64)
    rules = {"full": d, "sign": np.sign(d), "clip": np.clip(d, -1, 1)}
    terms = np.asarray(g, np.float64)[:, None]
    dx, dw = -(terms * rules[input_rule]).sum(2), (terms * rules[filter_rule]).sum(0)
    exact = -np.abs(d).sum(1), dx, dw
    results = jax.jit(op)(x, kernel), *cotangents(op, x, kernel, g)
    for result, expected in zip(results, exact, strict=True):
        np.testing.assert_array_equal(result, expected.astype(jnp.bfloat16))


def test_dense_takes_any_leading_axes():
    x, kernel = quarters(0, 2, 3, 5), quarters(1, 5, 4)
    expected = -np.abs(np.asarray(x)[..., None] - np.asarray(kernel)).sum(-2)
    for index in (..., (0, 0)):
        np.testing.assert_array_equal(jax.jit(adder_dense)(x[index], kernel), expected[index])


def test_full_filter_gradient_is_the_convolutions_less_the_kernel_times_the_sum():
    x, kernel, g = quarters(0, 3, 6, 5, 4), quarters(1, 3, 3, 4, 5), quarters(2, 3, 3, 3, 5)
    adder, product = (cotangents(op, x, kernel, g, strides=2)[1] for op in (adder_conv, conv))
    np.testing.assert_array_equal(adder, product - kernel * g.sum((0, 1, 2)))
    g = g - g[::-1]  # as after a normalisation: every filter's cotangents sum to zero
    adder, product = (cotangents(op, x, kernel, g, strides=2)[1] for op in (adder_conv, conv))
    np.testing.assert_array_equal(adder, product)


def test_variance_of_gaussian_distances():
    # Var |X - F| = (1 - 2 / pi) (Var X + Var F). A variance of n samples of |d|, whose kurtosis is
    # 3.87, has a relative standard deviation of sqrt(2.87 / n) = 0.0027; five of them are allowed.
    n, sx, sf = 400_000, 1.3, 0.7
    y = jax.jit(jax.vmap(adder_dense))(sx * normal(0, n, 1), sf * normal(1, n, 1, 1))
    assert np.var(y) / (sx**2 + sf**2) == pytest.approx(1 - 2 / np.pi, rel=5 * 0.0027)


A, B, N = (
    np.ones((2, 5, 6, 3), np.float32),
    np.ones((3, 3, 3, 4), np.float32),
    np.ones((3, 4), np.float32),
)


@pytest.mark.parametrize(
    "error, op, args, options, message",
    [
        (ValueError, adder_conv, (A[0], B), {}, r"\(5, 6, 3\) and \(3, 3, 3, 4\)\.$"),
        (
            ValueError,
            adder_conv,
            (A, B[:, :, :2]),
            {},
            r"not 3 in x .* and 2 in kernel \(3, 3, 2",
        ),
        (ValueError, adder_conv, (A, B), dict(padding="VALID", kernel_dilation=3), "7 .* has 5"),
        (ValueError, adder_conv, (A, B), dict(strides=0), "^strides must .*, not 0"),
        (ValueError, adder_conv, (A, B), dict(padding=((0, 0), (-1, 0))), "^padding .*-1"),
        (
            ValueError,
            adder_conv,
            (A, B),
            dict(filter_rule="clip"),
            "^filter_rule .* not 'clip'",
        ),
        (ValueError, adder_dense, (A, N), dict(input_rule="l2"), "^input_rule .* not 'l2'"),
        (ValueError, adder_dense, (A, B), {}, r"kernel \[in, out\], not shapes .*\(3, 3, 3, 4\)"),
        (ValueError, adder_dense, (A, N.T), {}, r"not 3 in x .* and 4 in kernel \(4, 3\)"),
        (TypeError, adder_conv, (A.astype("uint8"), B), {}, "floating x, not uint8"),
        (TypeError, adder_dense, (A, N.astype("int32")), {}, "floating kernel, not int32"),
    ],
)
def test_errors_name_what_was_given(error, op, args, options, message):
    with pytest.raises(error, match=message):
        op(*args, **options)


def test_sizes_of_a_dense_layer_may_be_names():
    """As `jax.export` and the playground's printer have them."""

    def both_passes(x, w, g):
        y, back = jax.vjp(adder_dense, x, w)
        return y, *back(g)

    batch, fan_in, fan_out = export.symbolic_shape("b,i,o")
    shapes = (batch, fan_in), (fan_in, fan_out), (batch, fan_out)
    with kernels.use("xla"):
        named = export.export(jax.jit(both_passes))(
            *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
        )
    for b, i, o in ((1, 1, 2), (3, 40, 5)):
        operands = [quarters(k, *s) for k, s in enumerate(((b, i), (i, o), (b, o)))]
        for got, expected in zip(named.call(*operands), both_passes(*operands), strict=True):
            np.testing.assert_array_equal(got, expected)
