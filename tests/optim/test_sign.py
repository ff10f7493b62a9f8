"""Sign updates: what is exactly true of them, the memory's invariant, and what it repairs."""

import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.optim import (
    adder_recipe,
    ef_sign_sgd,
    error_feedback,
    scaled_sign,
)

EPSILON = 2**-24  # relative rounding of float32
SEEDS = st.integers(0, 2**32 - 1)


@jax.jit
def compressed(p: Any) -> Any:
    return scaled_sign().update(p, optax.EmptyState())[0]


@jax.jit
def sign_step(g: Any) -> Any:
    optimizer = optax.sign_sgd(1.0)
    return optimizer.update(g, optimizer.init(g))[0]


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.sampled_from([1, 2, 9]))
def test_the_sign_is_the_steepest_step_of_bounded_numbers(seed, size):
    """Claim (a): of all steps with max norm 1 the one against the sign falls by the 1-norm."""
    rng = np.random.default_rng(seed)
    g = rng.normal(size=size)
    step = np.asarray(sign_step(g.astype(np.float32)), np.float64)
    assert g @ step == pytest.approx(-np.abs(g).sum(), rel=1e-12)
    corners = np.array(np.meshgrid(*[[-1, 1]] * size)).reshape(size, -1)
    others = np.concatenate([corners, rng.uniform(-1, 1, (size, 100))], axis=1)
    assert (g @ others).min() >= g @ step * (1 + 1e-12)


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.sampled_from([1, 2, 10, 1000]), st.floats(0.2, 8))
def test_its_angle_to_the_gradient_is_the_density(seed, size, power):
    """Claim (b), from dense to sparse: cos = ||g||_1 / (sqrt(d) ||g||_2), in [1 / sqrt(d), 1]."""
    g = np.random.default_rng(seed).normal(size=size)
    g = np.sign(g) * np.abs(g) ** power
    sign = np.asarray(
        optax.scale_by_sign().update(g.astype(np.float32), optax.EmptyState())[0], float
    )
    expected = np.abs(g).sum() / (np.sqrt(size) * np.linalg.norm(g))
    assert cosine(sign, g) == pytest.approx(expected, rel=1e-12)
    assert 1 / np.sqrt(size) * (1 - 1e-12) <= expected <= 1 + 1e-12


def test_the_extremes_of_the_angle():
    """Claim (c): 1 / sqrt(d) for one number among zeros that are not quite zeros, 1 for equals."""
    sparse = np.full(10_000, 1e-12)
    sparse[3] = -1
    assert cosine(np.sign(sparse), sparse) == pytest.approx(1e-2, rel=1e-7)
    assert cosine(np.sign(-np.ones(10_000)), -np.ones(10_000)) == 1


@pytest.mark.parametrize(
    ("d", "published"), [(1, 1), (2, 0.9003), (3, 0.8660), (10, 0.8180), (100, 0.7999)]
)
def test_an_isotropic_gradient_keeps_its_angle(d, published):
    """Claim (c): E cos = sqrt(d) G(d/2) / (sqrt(pi) G((d+1)/2)), which stays above sqrt(2/pi)."""
    log = math.lgamma(d / 2) - math.lgamma((d + 1) / 2)
    formula = math.sqrt(d / math.pi) * math.exp(log)
    assert formula == pytest.approx(published, abs=5e-5)
    assert formula > math.sqrt(2 / math.pi)
    g = np.random.default_rng(0).normal(size=(20_000, d))
    signs = np.sign(g)
    cosines = (signs * g).sum(1) / (math.sqrt(d) * np.linalg.norm(g, axis=1))
    # Five standard errors of the mean.
    assert cosines.mean() == pytest.approx(formula, abs=5 * cosines.std() / 20_000**0.5 + 1e-7)


def test_golden_values():
    p = {"a": np.array([3, -1, 0, 4], np.float32), "b": np.float32(-7)}
    assert jax.tree.map(lambda leaf: leaf.tolist(), compressed(p)) == {"a": [2, -2, 0, 2], "b": -7}


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.sampled_from([1, 5, 400]), st.floats(0.2, 4))
def test_what_is_left_out_is_what_the_density_leaves(seed, size, power):
    """Equation (1)."""
    p = np.abs(np.random.default_rng(seed).normal(size=size)) ** power
    p = p.astype(np.float32).astype(np.float64)
    left = np.sum((np.asarray(compressed(p.astype(np.float32)), float) - p) ** 2)
    squares = np.sum(p**2)
    expected = (1 - np.sum(p) ** 2 / (size * squares)) * squares
    # The scale rounds size + 1 times; to first order that changes nothing, as it is the best one,
    # to second order by the square. Differences of squares in float64 round by 2^-52 of them.
    scale = (size + 1) * EPSILON
    assert left == pytest.approx(expected, rel=1e-9, abs=squares * (scale**2 + size * 2**-52))


@pytest.mark.parametrize("compressor", [scaled_sign(), optax.scale(0.0)])
def test_parameters_minus_error_are_those_of_sgd(compressor):
    """Whatever the compressor is, and with gradients that depend on where it has led."""
    rate: Any = optax.piecewise_constant_schedule(0.5, {25: 0.5})  # exact in float32
    with jax.enable_x64(True):
        optimizer: Any = optax.chain(
            optax.scale_by_learning_rate(rate, flip_sign=False),
            error_feedback(compressor),
            optax.scale(-1.0),
        )
        rng = np.random.default_rng(0)
        x: Any = {"a": rng.normal(size=(3, 4)), "b": rng.normal(size=5)}
        sgd = x
        state, update = optimizer.init(x), jax.jit(optimizer.update)
        for count in range(50):
            size = float(rate(count))
            noise = jax.tree.map(lambda leaf: 0.1 * rng.normal(size=leaf.shape), x)
            g = jax.tree.map(lambda leaf, e: np.sin(3 * leaf) + e, x, noise)
            sgd = jax.tree.map(lambda leaf, g, size=size: leaf - size * g, sgd, g)
            updates, state = update(g, state, x)
            x = jax.tree.map(lambda leaf, u: leaf + np.asarray(u), x, updates)
            follower = jax.tree.map(np.subtract, x, state[1].error)
            # Numbers below 32, and five roundings of 2^-53 of them a step.
            assert max(np.abs(leaf).max() for leaf in jax.tree.leaves((x, sgd))) < 32
            chex.assert_trees_all_close(follower, sgd, rtol=0, atol=(count + 1) * 5 * 32 * 2**-53)
        assert any((np.abs(leaf) > 0.01).any() for leaf in jax.tree.leaves(state[1].error))


def test_ef_sign_sgd_is_algorithm_1():
    rng = np.random.default_rng(0)
    x: Any = rng.normal(size=6).astype(np.float32)
    expected, e = np.asarray(x, float), np.zeros(6)
    optimizer: Any = ef_sign_sgd(0.25)
    state, update = optimizer.init(x), jax.jit(optimizer.update)
    for step in range(1, 6):
        g = rng.normal(size=6).astype(np.float32)
        p = 0.25 * g + e
        delta = np.abs(p).sum() / 6 * np.sign(p)
        expected, e = expected - delta, p - delta
        updates, state = update(g, state, x)
        x = x + np.asarray(updates)
        # About ten roundings a step of numbers up to 4.
        np.testing.assert_allclose(x, expected, rtol=0, atol=10 * step * 4 * EPSILON)
        np.testing.assert_allclose(state[1].error, e, rtol=0, atol=10 * step * 4 * EPSILON)


def test_what_narrow_updates_round_is_remembered_too():
    optimizer: Any = error_feedback(optax.identity())
    state, total = optimizer.init(jnp.zeros(1, jnp.bfloat16)), 0.0
    for u in (256.0, 1.0, 1.0, 1.0):  # in bfloat16 256 + 1 is 256, 256 + 2 is 258
        passed, state = optimizer.update(jnp.array([u], jnp.bfloat16), state)
        assert passed.dtype == jnp.bfloat16
        total += float(passed[0])
    assert state.error.dtype == jnp.float32
    assert total + float(state.error[0]) == 259


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_dtypes_have_their_mean_in_float32(dtype):
    p = compressed(jnp.full((256, 256), -300, dtype))  # whose sum is beyond float16
    assert p.dtype == dtype and (p == -300).all()


def test_weight_decay_before_is_compressed_and_behind_is_not():
    w, g = jnp.array([4.0, -8.0]), jnp.array([1.0, 1.0])
    before = optax.chain(optax.add_decayed_weights(0.5), optax.sign_sgd(0.25))
    behind = optax.chain(
        optax.scale_by_sign(), optax.add_decayed_weights(0.5), optax.scale_by_learning_rate(0.25)
    )
    feedback = optax.chain(optax.add_decayed_weights(0.5), ef_sign_sgd(0.25))
    # Gradient with decay (3, -3).
    for optimizer, expected in (
        (before, [-0.25, 0.25]),
        (behind, [-0.25 * 3, 0.25 * 3]),
        (feedback, [-0.75, 0.75]),
    ):
        assert np.asarray(optimizer.update(g, optimizer.init(w), w)[0]).tolist() == expected


ALL = {
    "signSGD": optax.sign_sgd,
    "Signum": optax.signum,
    "scaled sign": lambda rate: optax.chain(scaled_sign(), optax.sgd(rate)),
    "EF-signSGD": ef_sign_sgd,
    "momentum": lambda rate: optax.chain(optax.sgd(rate, 0.9), error_feedback(scaled_sign())),
}
TARGET = np.array([3.0, -4.0, 0.5, 2.0])


def parabola(w):
    return jnp.sum(jnp.square(w - TARGET)) / 2


def rosenbrock(w):
    return (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2


def descend(optimizer, loss, w, steps):
    def step(carry, _):
        w, state = carry
        updates, state = optimizer.update(jax.grad(loss)(w), state, w)
        return (optax.apply_updates(w, updates), state), None

    return jax.jit(lambda w: jax.lax.scan(step, (w, optimizer.init(w)), length=steps)[0][0])(w)


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_minimises_a_parabola(make):
    # Signs cover up to the sum of the rates, 50, and end within the last rates of the target.
    w = descend(make(optax.linear_schedule(0.1, 0, 1000)), parabola, jnp.zeros(4), 1000)
    np.testing.assert_allclose(w, TARGET, atol=0.01)


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("signSGD", optax.exponential_decay(0.01, 20_000, 1e-4)),  # else it creeps in the valley
        ("Signum", optax.linear_schedule(0.01, 0, 20_000)),
        ("scaled sign", optax.linear_schedule(0.003, 0, 20_000)),
        ("EF-signSGD", optax.linear_schedule(0.003, 0, 20_000)),
        ("momentum", optax.linear_schedule(0.001, 0, 20_000)),
    ],
)
def test_minimises_rosenbrock(name, rate):
    w = descend(ALL[name](rate), rosenbrock, jnp.array([-1.0, 1.0]), 20_000)
    np.testing.assert_allclose(w, [1, 1], atol=0.01)


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_does_not_recompile_and_resumes_under_a_partition(make):
    """As a part of the recipe, for one kind of weights."""
    optimizer: Any = adder_recipe(10, parts={"adder": make(optax.constant_schedule(0.1))})
    rng = np.random.default_rng(0)
    names = {"adder_kernel": (3, 4), "kernel": (5,)}
    params: Any = {name: jnp.float32(rng.normal(size=shape)) for name, shape in names.items()}
    traces = []

    @jax.jit
    def update(*args):
        traces.append(1)
        return optimizer.update(*args)

    state = optimizer.init(params)
    grads = [{name: jnp.float32(rng.normal(size=p.shape)) for name, p in params.items()}] * 4
    history, kept = [], []
    for g in grads:
        kept.append(jax.tree.map(np.array, (params, state)))  # as a checkpoint has it
        updates, state = update(g, state, params)
        params = optax.apply_updates(params, updates)
        history.append(updates)
    params, state = kept[2]
    for g, expected in zip(grads[2:], history[2:], strict=True):
        updates, state = update(g, state, params)
        params = optax.apply_updates(params, updates)
        chex.assert_trees_all_equal(updates, expected)
    assert len(traces) == 1
    # The first update has one size in this part, and as many as numbers in the other.
    first = {name: np.unique(np.abs(np.asarray(u))) for name, u in history[0].items()}
    assert np.ptp(first["adder_kernel"]) <= 4 * EPSILON * first["adder_kernel"].max()
    assert len(first["kernel"]) == 5
