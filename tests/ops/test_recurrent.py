"""Recurrent steps against their equations, in float64 with a scalar loop."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.ops.recurrent import (
    Peepholes,
    gru_step,
    lstm_step,
    simple_step,
)

RNG = np.random.default_rng(0)
BATCH, N = 3, 4


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def simple(x, s):  # (1)
    return [math.tanh(x[0] + s[0])]


def gru(h, x, s, bias):  # (2), (3)
    r, z = sigmoid(x[0] + s[0]), sigmoid(x[1] + s[1])
    return [(1 - z) * math.tanh(x[2] + r * (s[2] + bias)) + z * h]


def lstm(c, x, s, p=(0, 0, 0), norm=lambda c: c):  # (4) to (6), of one unit
    i, f = sigmoid(x[0] + s[0] + p[0] * c), sigmoid(x[1] + s[1] + p[1] * c)
    c = f * c + i * math.tanh(x[2] + s[2])
    return [c, sigmoid(x[3] + s[3] + p[2] * c) * math.tanh(norm(c))]


def arrays(gates):
    """A state, products of all gates and one number a unit, in float64."""
    state = RNG.normal(size=(BATCH, N))
    x, s = RNG.normal(size=(2, BATCH, gates * N))
    return state, x, s, RNG.normal(size=N)


def unit_by_unit(step, gates, state, x, s, *others):
    """`step` of every unit alone; of x and s it sees one number a gate."""
    results = []
    for b in range(BATCH):
        for n in range(N):
            of_gates = (a.reshape(BATCH, gates, N)[b, :, n] for a in (x, s))
            start = [] if state is None else [state[b, n]]
            results.append(step(*start, *of_gates, *(other[..., n] for other in others)))
    return [np.array(result).reshape(BATCH, N) for result in zip(*results, strict=True)]


P = Peepholes(*RNG.normal(size=(3, N)))
STATE = {gates: arrays(gates) for gates in (1, 3, 4)}


def squared(c):
    return c * c / 2


CASES = {
    "simple": (simple_step, simple, 1, [None, *STATE[1][1:3]]),
    "gru": (gru_step, gru, 3, [*STATE[3]]),
    "lstm": (lstm_step, lstm, 4, [*STATE[4][:3]]),
    "peepholes": (lstm_step, lstm, 4, [*STATE[4][:3], P]),
    "normalised": (
        functools.partial(lstm_step, norm=squared),
        functools.partial(lstm, norm=squared),
        4,
        [*STATE[4][:3], P],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_step_is_its_equations(name):
    step, reference, gates, args = CASES[name]
    others = [np.stack(arg) if isinstance(arg, Peepholes) else arg for arg in args[1:]]
    expected = unit_by_unit(reference, gates, args[0], *others)
    with jax.enable_x64(True):
        given = [arg for arg in args if arg is not None]
        # A handful of float64 operations on numbers below 10, each right to 2^-52.
        got = jax.jit(step)(*given)
        got = got if isinstance(got, tuple) else (got,)
        for result, wanted in zip(got, expected, strict=True):
            np.testing.assert_allclose(result, wanted, rtol=0, atol=1e-14)


def test_elman_by_hand():
    """tanh(0.5 ln 3) = (3 - 1) / (3 + 1)."""
    h = simple_step(jnp.array([math.log(3)]), jnp.array([-0.5 * math.log(3)]))
    np.testing.assert_allclose(h, [0.5], rtol=1e-6)


def test_gru_by_hand():
    """r = 1/2, z = 3/4, the candidate tanh(0.5 ln 3 (1 + r (-2 + 2))) = 1/2: h' = 1/8 - 3/4."""
    half = 0.5 * math.log(3)
    x = jnp.array([0.0, math.log(3), half])
    s = jnp.array([0.0, 0.0, -2 * half])
    h = jax.jit(gru_step)(jnp.array([-1.0]), x, s, jnp.array([2 * half]))
    np.testing.assert_allclose(h, [0.125 - 0.75], rtol=1e-6)


def test_peepholes_by_hand():
    """c = 2: i = sigma(ln 3) = 3/4 by a peephole alone, f = sigma(-ln 3) = 1/4, g = 1/2, so that
    c' = 1/4 2 + 3/4 1/2 = 7/8; o sees c': sigma(ln 3) = 3/4."""
    log = math.log(3)
    x = jnp.array([0.0, 0.0, log / 2, 0.0])
    peepholes = Peepholes(*(jnp.array([p]) for p in (log / 2, -log / 2, log / 0.875)))
    c, h = jax.jit(lstm_step)(jnp.array([2.0]), x, np.zeros(4, np.float32), peepholes)
    np.testing.assert_allclose(c, [0.875], rtol=1e-6)
    np.testing.assert_allclose(h, [0.75 * math.tanh(0.875)], rtol=1e-6)


def test_lstm_by_hand():
    """All products zero: every gate is 1/2 and the candidate 0, so c' = c / 2."""
    c, h = jax.jit(lstm_step)(jnp.array([2.0]), np.zeros(4, np.float32), np.zeros(4, np.float32))
    np.testing.assert_allclose((c, h), ([1.0], [0.5 * math.tanh(1.0)]), rtol=1e-6)


def test_a_step_of_many_is_each_alone():
    state, x, s, bias = (jnp.float32(a) for a in STATE[3])
    whole = jax.jit(gru_step)(state, x, s, bias)
    each = jax.jit(jax.vmap(gru_step, (0, 0, 0, None)))(state, x, s, bias)
    assert np.array_equal(whole, each)
