"""Estimators against scalar formulas at and around every edge, and against their potentials."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.costs import stored_bytes
from nnlab.ops import estimators
from nnlab.ops.binary import sign_ste
from nnlab.ops.estimators import dorefa_quantizer, magnitude_aware_sign, ste_tern
from nnlab.testing import check_gradient_rule

# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = functools.partial(jax.jit, compiler_options=QUICK)
THOROUGH = pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.slow)])
INF, NAN = math.inf, math.nan
TINY, EPS = float(jnp.finfo(jnp.float32).tiny), float(jnp.finfo(jnp.float32).eps)
EDGES = [0.0, -0.0, TINY, -TINY, 1.0, -1.0, 1 + EPS, -1 - EPS, 0.5, -0.5, 0.5 + EPS, -0.5 - EPS]
EDGES += [0.25, -0.75, 2.0, -2.0, 0.05, -0.05, 100.0, -100.0, INF, -INF]


def sign(x):
    return 1.0 if x >= 0 else -1.0


def inside(x, c):
    return 1.0 if abs(x) <= c else 0.0


def swish_slope(x, b=5.0):
    if abs(b * x) > 700:  # where cosh overflows the slope is 0
        return 0.0
    return b * (2 - b * x * math.tanh(b * x / 2)) / (1 + math.cosh(b * x))


def tern(x, t):
    return float(x >= t) - float(x <= -t)


def two_bits(x):
    return round(3 * min(max(x, 0.0), 1.0)) / 3


SCALARS = {  # estimator: value and slope of one number
    "no_op": (estimators.no_op, lambda x: x, lambda x: 1.0),
    "ste_sign": (estimators.ste_sign, sign, lambda x: inside(x, 1)),
    "ste_sign, half": (
        functools.partial(estimators.ste_sign, clip_value=0.5),
        sign,
        lambda x: inside(x, 0.5),
    ),
    "ste_sign, unclipped": (
        functools.partial(estimators.ste_sign, clip_value=None),
        sign,
        lambda x: 1.0,
    ),
    "approx_sign": (estimators.approx_sign, sign, lambda x: 2 * max(0.0, 1 - abs(x))),
    "swish_sign": (estimators.swish_sign, sign, swish_slope),
    "ste_heaviside": (estimators.ste_heaviside, lambda x: float(x > 0), lambda x: inside(x, 1)),
    "ste_tern": (ste_tern, lambda x: tern(x, np.float32(0.05)), lambda x: inside(x, 1)),
    "ste_tern, half": (
        functools.partial(ste_tern, threshold_value=0.5, clip_value=0.5),
        lambda x: tern(x, 0.5),
        lambda x: inside(x, 0.5),
    ),
    "dorefa_quantizer": (dorefa_quantizer, two_bits, lambda x: float(0 <= x <= 1)),
}


@pytest.mark.parametrize("name", SCALARS)
def test_scalar_formulas(name):
    estimator, value, slope = SCALARS[name]

    @jit
    def both(x):
        y, pull = jax.vjp(estimator, x)
        return y, *pull(jnp.full_like(y, 3))

    for dtype in (jnp.float32, jnp.bfloat16):
        x = np.array([*EDGES, NAN], dtype)
        y, dx = map(np.asarray, both(x))
        assert y.dtype == dx.dtype == dtype and np.isnan(y[-1])
        numbers = np.asarray(x[:-1], np.float64).tolist()
        # One rounding to the dtype. (4), computed in float32, is also a difference of numbers of
        # about 2 times 3 b / (1 + cosh bx), 2.1 where they cancel most: four roundings, or 16 units
        # of 2^-24.
        rtol, atol = float(jnp.finfo(dtype).eps), 16 * 2**-24 if name == "swish_sign" else 0
        expected = [value(v) for v in numbers], [3 * slope(v) for v in numbers]
        for got, wanted in zip((y, dx), expected, strict=True):
            np.testing.assert_allclose(got[:-1].astype(float), wanted, rtol=rtol, atol=atol)


def clip(x):
    return jnp.clip(x, -1, 1)


def swish(x, b=5.0):
    s = jax.nn.sigmoid(b * x)
    return 2 * s * (1 + b * x * (1 - s)) - 1


POTENTIALS = {
    "ste_sign, half": lambda x: jnp.clip(x, -0.5, 0.5),
    "approx_sign": lambda x: 2 * clip(x) - clip(x) * jnp.abs(clip(x)),
    "swish_sign": swish,
    "dorefa_quantizer": lambda x: jnp.clip(x, 0, 1),
}


@THOROUGH
@pytest.mark.parametrize("name", POTENTIALS)
def test_slopes_are_those_of_the_potentials(name, thorough):
    estimator, value, _ = SCALARS[name]
    x = np.asarray(np.linspace(-1.6, 1.6, 14).reshape(2, 7), np.float32)  # off all edges
    check_gradient_rule(
        estimator,
        [x],
        value=np.vectorize(value, otypes=[float]),
        potentials=[POTENTIALS[name]],
        thorough=thorough,
    )


def test_the_default_sign_is_that_of_binary_networks():
    x = np.asarray(EDGES, np.float32)
    ours, theirs = (
        jit(lambda x, f=f: jax.vjp(f, x)[1](x)) for f in (estimators.ste_sign, sign_ste)
    )
    np.testing.assert_array_equal(ours(x), theirs(x))


def test_ternary_weight_networks():
    # The mean of abs is 0.5, the threshold 0.35.
    x = np.asarray([0.5, -0.25, 0.375, 0.0, -0.9, 0.25, 1.225, -0.5], np.float32)

    @jit
    def passes(x):
        y, pull = jax.vjp(functools.partial(ste_tern, ternary_weight_networks=True), x)
        return y, *pull(jnp.ones_like(y))

    y, dx = passes(x)
    assert y.tolist() == [1, 0, 1, 0, -1, 0, 1, -1]
    assert dx.tolist() == [1, 1, 1, 1, 1, 1, 0, 1]


def magnitude(w):
    return np.abs(w).mean(axis=(0, 1))


@THOROUGH
def test_magnitude_aware_sign(thorough):
    w = np.asarray(np.linspace(-1.5, 1.4, 12).reshape(2, 2, 3), np.float32)
    check_gradient_rule(
        magnitude_aware_sign,
        [w],
        value=lambda w: magnitude(w) * np.where(w >= 0, 1, -1),
        potentials=[lambda w: jax.lax.stop_gradient(jnp.abs(w).mean((0, 1))) * clip(w)],
        bfloat16_rtol=2**-7,  # the scale and its product with g are rounded
        thorough=thorough,
    )


def centred(w):
    tanh = jnp.tanh(w)
    return tanh / jnp.abs(tanh).max()


@pytest.mark.parametrize(
    ("bits", "thorough"), [(2, False), pytest.param(8, True, marks=pytest.mark.slow)]
)
def test_dorefa_weights(bits, thorough):
    w, n = np.asarray(np.linspace(-1.5, 1.37, 10).reshape(5, 2), np.float32), 2**bits - 1
    check_gradient_rule(
        functools.partial(dorefa_quantizer, k_bit=bits, mode="weights"),
        [w],
        value=lambda w: 2 * np.round(n * (np.asarray(jit(centred)(w)) + 1) / 2) / n - 1,
        potentials=[centred],
        thorough=thorough,
    )


@THOROUGH
def test_dorefa_weights_of_one_bit(thorough):
    w = np.asarray(np.linspace(-1.5, 1.4, 12).reshape(2, 6), np.float32)
    check_gradient_rule(
        functools.partial(dorefa_quantizer, k_bit=1, mode="weights"),
        [w],
        value=lambda w: np.abs(w).mean() * np.where(w >= 0, 1, -1),
        potentials=[lambda w: w],
        thorough=thorough,
    )
    zeros = np.zeros((2, 3), np.float32)
    of_zeros = jit(lambda x: [dorefa_quantizer(x, bits, "weights") for bits in (1, 4)])(zeros)
    assert np.isfinite(of_zeros).all()


def test_bits_that_weights_are_stored_in():
    w = jax.ShapeDtypeStruct((3, 3, 4, 10), jnp.float32)  # 360
    for estimator, expected in (
        (estimators.ste_sign, 45),
        (functools.partial(estimators.ste_sign, clip_value=2.0), 45),
        (estimators.approx_sign, 45),
        (estimators.swish_sign, 45),
        (magnitude_aware_sign, 45 + 40),
        (functools.partial(dorefa_quantizer, k_bit=1, mode="weights"), 45 + 4),
        (functools.partial(dorefa_quantizer, k_bit=3, mode="weights"), 135),
        (estimators.no_op, 1440),
    ):
        assert stored_bytes(lambda w, e=estimator: e(w).sum(), w) == expected


def test_arguments_that_cannot_be():
    x = jnp.ones(3)
    with pytest.raises(ValueError, match=r"^k_bit must be an integer from 1 to 8, not 9\.$"):
        dorefa_quantizer(x, 9)
    wrong: Any = "kernel"
    with pytest.raises(ValueError, match=r"^mode must be .*, not 'kernel'"):
        dorefa_quantizer(x, 2, wrong)
