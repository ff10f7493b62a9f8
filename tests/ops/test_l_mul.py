"""L-Mul: its table, the edges of floats, statistics of its error, and its rules."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab import kernels
from nnlab.costs import count
from nnlab.ops.front import over_rows
from nnlab.ops.l_mul import l_mul_attention, l_mul_conv


@pytest.fixture(autouse=True)
def xla():
    with kernels.use("xla"):  # nothing to compile in C++
        yield


# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = functools.partial(jax.jit, compiler_options=QUICK)


@functools.cache
def product(form: Any = "add", mantissa_bits=23):
    op = functools.partial(l_mul_conv, form=form, mantissa_bits=mantissa_bits)

    @jit
    def of_pairs(x, w):  # groups of one number, of a size so that all tests share a program
        return jax.vmap(lambda x, w: over_rows(op, x[None, None], w[None, None])[0, 0])(x, w)

    def of_any(x, w):
        padded = [np.pad(np.float32(a), (0, 4000 - len(a))) for a in (x, w)]
        return np.asarray(of_pairs(*padded))[: len(x)]

    return of_any


@pytest.mark.parametrize(
    ("form", "bits", "x", "expected"),
    [
        ("add", 23, 1.75, 3.125),
        ("formula", 23, 1.75, 2.5625),
        ("add", 23, 1, 1.0625),
        ("formula", 23, 1, 1.0625),
        ("add", 3, 1, 1.125),
        ("formula", 4, 1, 1.125),
        ("formula", 2, 1, 1.25),
    ],
)
def test_the_table(form, bits, x, expected):
    assert product(form, bits)([x], [x]) == expected


@pytest.mark.parametrize(
    ("form", "mean", "rms", "most"),
    [("add", 0.0041, 0.031, 0.073), ("formula", -0.064, 0.096, 0.23)],
)
def test_errors_over_uniform_fractions(form, mean, rms, most):
    x, w = np.random.default_rng(0).uniform(1, 2, (2, 4000)).astype(np.float32)
    error = product(form)(x, w) / (np.float64(x) * w) - 1
    assert error.mean() == pytest.approx(mean, abs=0.002)
    assert np.sqrt(np.square(error).mean()) == pytest.approx(rms, abs=0.002)
    assert np.abs(error).max() == pytest.approx(most, abs=0.02)


def test_both_forms_in_float64():
    """From exponents and fractions, for operands of all sizes whose products are normal."""
    rng = np.random.default_rng(1)
    x, w = (rng.normal(size=4000) * 2.0 ** rng.integers(-60, 60, 4000) for _ in range(2))
    x, w = np.float32(x), np.float32(w)
    (a, e), (b, f) = np.frexp(np.float64(x)), np.frexp(np.float64(w))
    s = 2 * np.abs(a) + 2 * np.abs(b) - 2 + 1 / 16
    carry = np.floor(s).astype(int)
    sign = np.sign(a) * np.sign(b)
    added = sign * np.ldexp(1 + s - carry, carry + e + f - 2)
    np.testing.assert_allclose(product()(x, w), added, rtol=1e-6)
    np.testing.assert_allclose(
        product("formula")(x, w), sign * np.ldexp(1 + s, e + f - 2), rtol=1e-6
    )


EDGES = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1.5, -3, 1e-30, -1e30, 3e38, 1e-40], np.float32)


@pytest.mark.parametrize("form", ["add", "formula"])
def test_signs_order_and_what_is_no_normal_number(form):
    x, w = (a.ravel() for a in np.meshgrid(EDGES, EDGES))
    y = product(form)(x, w)
    np.testing.assert_array_equal(y, product(form)(w, x))
    with np.errstate(all="ignore"):
        exact = np.where(np.abs(x) < 1e-38, 0, x) * np.where(np.abs(w) < 1e-38, 0, w)
    special = ~np.isfinite(exact) | (exact == 0)
    np.testing.assert_array_equal(y[special], exact[special])
    usual = np.isfinite(exact) & (np.abs(exact) > 1e-36) & (np.abs(exact) < 1e38)
    assert usual.any() and (np.sign(y) == np.sign(exact))[usual].all()
    np.testing.assert_allclose(y[usual], exact[usual], rtol=0.24)
    np.testing.assert_array_equal(product(form)(-x, w)[usual], -y[usual])


def test_rules_are_those_of_the_convolution():
    rng = np.random.default_rng(0)
    x, w, g = (rng.normal(size=s).astype(np.float32) for s in ((4, 5), (5, 3), (4, 3)))
    for form in ("add", "formula"):
        op = functools.partial(l_mul_conv, form=form, mantissa_bits=3)
        pull = jit(lambda x, w, g, op=op: jax.vjp(functools.partial(over_rows, op), x, w)[1](g))
        dx, dw = pull(x, w, g)
        rounded: Any = [jax.lax.reduce_precision(a, 8, 3) for a in (x, w)]
        np.testing.assert_allclose(dx, g @ rounded[1].T, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(dw, rounded[0].T @ g, rtol=1e-5, atol=1e-6)


def test_a_term_is_an_addition_of_integers_and_one_of_floats():
    for form in ("add", "formula"):
        op = functools.partial(over_rows, functools.partial(l_mul_conv, form=form))
        counts = count(op, jnp.ones((4, 5)), jnp.ones((5, 3)))
        assert counts.totals()["multiplications"] == counts.totals()["comparisons"] == 0
        assert counts.additions == {"float32": 60, "int32": 60}


@pytest.mark.slow
def test_attention_is_near_that_of_products():
    q, k, v = np.random.default_rng(0).normal(size=(3, 2, 6, 2, 4)).astype(np.float32)
    expected = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    attention = functools.partial(l_mul_attention, is_causal=True, form="formula")
    y = jit(attention)(q, k, v)
    np.testing.assert_allclose(y, expected, atol=0.35)
    np.testing.assert_allclose(y[:, 0] / expected[:, 0], 1.03, atol=0.05)  # a single key


def test_bad_options():
    x, w = jnp.ones((1, 1, 1)), jnp.ones((1, 1, 1))
    wrong: Any = [{"form": "sum"}, {"mantissa_bits": 0}, {"mantissa_bits": 24}]
    for options in wrong:
        with pytest.raises(ValueError, match=r"^(form|mantissa_bits) must be"):
            l_mul_conv(x, w, **options)


@pytest.mark.slow
def test_native_sums_are_those_of_xla():
    rng = np.random.default_rng(0)
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((2, 7, 5, 6), (3, 2, 6, 9)))
    x[0, 0], w[0, 0, 0] = 0, 0
    conv = functools.partial(l_mul_conv, strides=(2, 1))
    with kernels.use("native"):
        native = jit(lambda x, w: conv(x, w))(x, w)
    np.testing.assert_allclose(native, jit(conv)(x, w), rtol=1e-5, atol=1e-5)
