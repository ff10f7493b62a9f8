"""DoReFa's product against its quantisers, its rounded cotangents against a scalar formula."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.costs import count, stored_bytes
from nnlab.ops.dorefa import dorefa_conv, quantize_gradient
from nnlab.ops.estimators import dorefa_quantizer
from nnlab.testing import check_gradient_rule, image_windows

# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = functools.partial(jax.jit, compiler_options=QUICK)
OPTIONS: Any = dict(strides=(2, 1), padding=((1, 0), (0, 1)))


def conv_sum(x, w):
    return jnp.tensordot(image_windows(x, w.shape, **OPTIONS), w, 3)


def operands() -> Any:
    rng = np.random.default_rng(0)
    x, w = rng.uniform(-0.5, 1.5, (2, 4, 3, 2)), rng.normal(size=(2, 2, 2, 3))
    return np.asarray(x, np.float32), np.asarray(w, np.float32)


SLOW_BITS = (1, 2), (8, 8), (3, 32)


@pytest.mark.parametrize(
    "bits",
    [(1, 32), (2, 3), (32, 4), *(pytest.param(b, marks=pytest.mark.slow) for b in SLOW_BITS)],
)
def test_equals_the_product_of_the_quantised(bits):
    weight_bits, activation_bits = bits

    def reference(x, w):
        x = x if activation_bits == 32 else dorefa_quantizer(x, activation_bits)
        w = w if weight_bits == 32 else dorefa_quantizer(w, weight_bits, "weights")
        return conv_sum(x, w)

    options = dict(weight_bits=weight_bits, activation_bits=activation_bits)

    @functools.partial(jit, static_argnums=0)
    def passes(op, x, w):
        y, pull = jax.vjp(op, x, w)
        return y, *pull(jnp.ones_like(y))

    op = functools.partial(dorefa_conv, **options, **OPTIONS)
    # Sums of at most 36 terms below 4 in another order: 36 roundings of 2^-24 of sums below 64.
    for got, other in zip(passes(op, *operands()), passes(reference, *operands()), strict=True):
        np.testing.assert_allclose(got, other, rtol=0, atol=36 * 64 * 2**-24)


@pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_one_bit_is_the_true_gradient_of_its_potentials(thorough):
    def value(x, w):
        q = np.abs(w).mean() * np.where(np.asarray(w) >= 0, 1, -1)
        return np.asarray(jit(conv_sum)(np.round(np.clip(x, 0, 1)), q))

    def signs(w) -> Any:
        return jax.lax.stop_gradient(jnp.abs(w).mean() * jnp.where(w >= 0, 1.0, -1.0))

    rng = np.random.default_rng(0)  # numbers of few bits, whose mean size is 1/2
    x = rng.permutation(np.repeat(np.asarray([-0.25, 0.25, 0.75, 1.5], np.float32), 12)).reshape(
        2, 4, 3, 2
    )
    w = rng.permutation(np.repeat(np.asarray([-0.75, -0.25, 0.25, 0.75], np.float32), 6)).reshape(
        2, 2, 2, 3
    )
    check_gradient_rule(
        functools.partial(dorefa_conv, activation_bits=1, **OPTIONS),
        [x, w],
        value=value,
        potentials=[
            lambda x, w: conv_sum(jnp.clip(x, 0, 1), signs(w)),
            lambda x, w: conv_sum(jnp.round(jnp.clip(x, 0, 1)), w),
        ],
        rtol=0,
        atol=0,
        bfloat16_rtol=2**-7,  # the product is rounded, and the scale times it
        thorough=thorough,
    )


def rounded(g, sigma, bits):
    """Equation (2) for the cotangents of one image in float64."""
    n, largest = 2**bits - 1, np.abs(g).max()
    u = np.clip(g / (2 * largest) + 0.5 + sigma / n, 0, 1)
    return 2 * largest * (np.round(n * u) / n - 0.5)


@pytest.mark.parametrize("bits", [1, 6])
def test_rounded_cotangents_equal_the_scalar_formula(bits):
    key = jax.random.key(0)
    g = np.random.default_rng(0).normal(size=(3, 4, 5, 2)).astype(np.float32)

    @jit
    def passes(y, g):
        y, pull = jax.vjp(lambda y: quantize_gradient(key, y, bits), y)
        return y, *pull(g)

    y, got = passes(np.zeros(g.shape, np.float32), jnp.asarray(g))
    assert not y.any()
    sigma = np.asarray(jax.random.uniform(key, g.shape, jnp.float32, -0.5, 0.5), np.float64)
    expected = np.stack([rounded(*pair, bits) for pair in zip(g.astype(float), sigma, strict=True)])
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
    for image in np.asarray(got):
        assert len(np.unique(np.round(image / np.abs(image).max(), 4))) <= 2**bits


def test_the_mean_of_rounded_cotangents_is_the_cotangent():
    g, draws, n = np.asarray([[-1.0, -0.4, 0.0, 0.1, 0.9]], np.float32), 20_000, 3

    def one(key):
        return jax.vjp(lambda y: quantize_gradient(key, y, 2), np.zeros(g.shape, np.float32))[1](g)[
            0
        ]

    means = jit(lambda key: jax.vmap(one)(jax.random.split(key, draws)).mean(0))(jax.random.key(1))
    # A step is 2 / n wide and a draw deviates by half of it at most; five deviations of the mean.
    np.testing.assert_allclose(means, g, atol=5 * (1 / n) / np.sqrt(draws))


def test_images_have_their_own_largest_and_zeros_stay():
    key = jax.random.key(0)
    g = np.asarray([[1e-3] * 4, [1e3] * 4, [0] * 4], np.float32)
    quantised = functools.partial(quantize_gradient, key, bits=1)
    (got,) = jit(lambda y, g: jax.vjp(quantised, y)[1](g))(np.zeros((3, 4), np.float32), g)
    np.testing.assert_array_equal(np.abs(got), np.abs(g))


def test_gradient_bits_need_a_key():
    x, w = operands()
    g = np.random.default_rng(1).normal(size=jax.eval_shape(conv_sum, x, w).shape)
    key, op = jax.random.key(0), functools.partial(dorefa_conv, **OPTIONS)
    remat = jax.checkpoint(functools.partial(op, gradient_bits=2))

    @jit
    def cotangents(traced, w, g):
        ops = [functools.partial(op, gradient_bits=2), functools.partial(op, key=key)]
        ops.append(functools.partial(op, gradient_bits=2, key=key))
        ops.append(functools.partial(remat, key=traced))  # under jit and remat
        return [jax.vjp(lambda w, op=op: op(x, w), w)[1](g)[0] for op in ops]

    real, also_real, coarse, jitted = map(np.asarray, cotangents(key, w, np.asarray(g, np.float32)))
    np.testing.assert_array_equal(also_real, real)
    assert (coarse != real).any()
    np.testing.assert_allclose(jitted, coarse, rtol=1e-5, atol=1e-5)


def test_what_a_term_and_a_weight_cost():
    x = jax.ShapeDtypeStruct((1, 4, 4, 8), jnp.float32)
    w = jax.ShapeDtypeStruct((3, 3, 8, 5), jnp.float32)
    terms = 16 * 5 * 72

    def cost(**bits):
        op = functools.partial(dorefa_conv, **bits)
        return count(op, x, w), stored_bytes(lambda w, x: op(x, w), w, x)

    counts, stored = cost(weight_bits=1, activation_bits=32)
    assert counts.additions == {"float32": terms} and counts.multiplications == {"float32": 80}
    assert stored == 360 // 8 + 4
    counts, stored = cost(weight_bits=3, activation_bits=4)
    assert counts.additions == {"int8": terms} and counts.multiplications["int8"] == terms
    assert stored == 360 * 3 // 8
    counts, stored = cost(weight_bits=32, activation_bits=32)
    assert counts.multiplications == {"float32": terms} and stored == 1440


def test_bits_that_cannot_be():
    x, w = operands()
    for name in ("weight_bits", "activation_bits", "gradient_bits"):
        bits: Any = {name: 9}
        with pytest.raises(
            ValueError, match=rf"^{name} must be an integer from 1 to 8, or 32, not 9"
        ):
            dorefa_conv(x, w, **bits)
