"""Signed powers of two against a scalar formula, and their rules against the potentials."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.costs import stored_bytes
from nnlab.ops.shift import shift_ps_weights, shift_q_conv, shift_q_weights
from nnlab.testing import check_gradient_rule, image_windows


def power(exponent, bits):
    return 2.0 ** min(max(exponent, -(2 ** (bits - 1) - 2)), 0)


def rounded(w, bits):
    """Equation (1) for one number."""
    if w == 0 or math.isnan(w):
        return w
    return math.copysign(power(round(math.log2(abs(w))) if abs(w) < 1 else 0, bits), w)


def quantised(w, bits=5):
    return np.vectorize(functools.partial(rounded, bits=bits), otypes=[float])(w)


def weights() -> Any:
    """Numbers of all sizes from 2^-17 to 4 with both signs, and a zero."""
    sizes = np.exp2(np.linspace(-17, 2, 13))
    both = np.asarray([sizes, -sizes[::-1]], np.float32)
    both[0, 5] = 0
    return both


def test_golden():
    # log2 of 0.7 is -0.51, of 0.71 -0.49; of 3 bits the smallest weight is 2^-2.
    w = jnp.array([1.0, 0.71, 0.7, 0.36, 0.35, -0.01, 100.0, 0.0])
    assert shift_q_weights(w, bits=3).tolist() == [1, 1, 0.5, 0.5, 0.25, -0.25, 1, 0]
    assert set(shift_q_weights(w, bits=2).tolist()) == {-1, 0, 1}
    shift = jnp.array([-1.4, -1.6, -0.5, -1.5, 3.0, -9.0])
    sign = jnp.array([0.6, -0.6, 2.0, 0.5, 0.9, 0.51])
    assert shift_ps_weights(shift, sign, bits=3).tolist() == [0.5, -0.25, 1, 0, 1, 0.25]


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_exact_at_every_size(bits):
    sizes = np.exp2(np.random.default_rng(0).uniform(-125, 3, 2000)).astype(np.float32)
    halfway = np.exp2(np.arange(-125, 2) + 0.5).astype(np.float32)
    edges = [np.nextafter(halfway, 0), halfway, np.nextafter(halfway, np.float32(4))]
    w = np.concatenate([sizes, *edges, np.exp2(np.arange(-126, 2)).astype(np.float32)])
    np.testing.assert_array_equal(
        jax.jit(functools.partial(shift_q_weights, bits=bits))(w), quantised(w, bits)
    )


def test_zeros_infinities_and_nan():
    w = jnp.array([0.0, -0.0, np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal(shift_q_weights(w), [0, 0, 1, -1, np.nan])
    one = jnp.ones(2)
    nans = jnp.array([np.nan, 1.0])
    np.testing.assert_array_equal(shift_ps_weights(nans, one), [np.nan, 1])
    np.testing.assert_array_equal(shift_ps_weights(one, nans), [np.nan, 1])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_dtypes(dtype):
    w = weights().astype(dtype)
    q = jax.jit(shift_q_weights)(w)
    assert q.dtype == dtype
    np.testing.assert_array_equal(np.asarray(q, float), quantised(np.asarray(w, float)))


@pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_rules(thorough):
    exact: dict[str, Any] = dict(rtol=0, atol=0, thorough=thorough)
    check_gradient_rule(
        shift_q_weights, [weights()], value=quantised, potentials=[lambda w: w], **exact
    )

    def value(s, g):
        s, g = np.asarray(s), np.asarray(g)
        return np.sign(np.round(g)) * np.exp2(np.clip(np.round(s), -14, 0))

    def linear(s, g):
        return s * value(jax.lax.stop_gradient(s), jax.lax.stop_gradient(g)) * math.log(2)

    shift = np.asarray(np.linspace(-16, 1, 15).reshape(3, 5), np.float32)
    sign = np.asarray(np.linspace(-1, 1, 15).reshape(5, 3).T, np.float32)
    # Two roundings of the factor ln 2 and of a product with it: in bfloat16 2^-8 and one allowed.
    check_gradient_rule(
        shift_ps_weights,
        [shift, sign],
        value=value,
        potentials=[linear, lambda s, g: g],
        rtol=2**-22,
        atol=0,
        bfloat16_rtol=2**-7,
        thorough=thorough,
    )


def test_convolution():
    options: Any = dict(strides=(2, 1), padding=((1, 0), (0, 1)))

    def conv(x, w):
        return (image_windows(x, w.shape, **options)[..., None] * w).sum((3, 4, 5))

    rng = np.random.default_rng(0)
    x = np.asarray(rng.integers(-8, 9, (2, 4, 3, 2)) / 4, np.float32)
    w = np.asarray(rng.normal(0, 0.5, (2, 2, 2, 3)), np.float32)
    op = functools.partial(shift_q_conv, bits=3, **options)
    q = np.asarray(quantised(np.asarray(w, float), 3), np.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def passes(op, x, w):
        y, pull = jax.vjp(op, x, w)
        return y, *pull(y)

    for got, wanted in zip(passes(op, x, w), passes(conv, x, q), strict=True):
        np.testing.assert_array_equal(got, wanted)  # multiples of 1/16 below 2^8: exact


def test_a_weight_is_stored_in_its_bits():
    w = jax.ShapeDtypeStruct((10, 3), jnp.float32)
    for bits in (3, 5):
        assert stored_bytes(lambda w, b=bits: shift_q_weights(w, bits=b).sum(), w) == (
            math.ceil(30 * bits / 8)
        )
        # Exponents and signs go into the same numbers.
        assert stored_bytes(lambda p, b=bits: shift_ps_weights(*p, bits=b).sum(), (w, w)) == (
            math.ceil(30 * bits / 8)
        )


def test_bits_that_cannot_be():
    w = jnp.ones(3)
    wrong: Any = (1, 9, 2.5)
    for bits in wrong:
        with pytest.raises(ValueError, match=f"^bits must be an integer from 2 to 8, not {bits}"):
            shift_q_weights(w, bits=bits)
    with pytest.raises(ValueError, match=r"^6 bits .* 2\^-30, but .* float16 is 6.1e-05\.$"):
        shift_ps_weights(w.astype(jnp.float16), w.astype(jnp.float16), bits=6)
