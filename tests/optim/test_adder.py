"""The adder rate against the published formula, and as an optimiser."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.optim import adder_rate, labels

EPSILON = 2**-24  # relative rounding of float32


@jax.jit
def rescaled(g: Any, eta: float = 0.2) -> Any:
    transformation = adder_rate(eta)
    return transformation.update(g, transformation.init(g))[0]


def rms(x):
    return np.sqrt(np.square(np.asarray(x, np.float64)).mean())


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.floats(-8, 15), st.floats(1e-3, 10), st.sampled_from([1, 7, 300])
)
def test_the_root_mean_square_is_eta_whatever_the_scale(seed, exponent, eta, size):
    g = np.random.default_rng(seed).normal(size=size) * 10**exponent
    # A sum of k squares rounds k + 1 times, its root halves that; six more for root and products.
    tolerance = (size / 2 + 7) * EPSILON
    assert rms(rescaled(g.astype(np.float32), eta)) == pytest.approx(eta, rel=tolerance)


def test_equals_the_published_code():
    # grad / max(||grad||, 1e-12) · sqrt(k) / 5, the last gradients below the floor
    rng = np.random.default_rng(0)
    scales = [1.0, 1e-6, 1e6, 1e-13, 1e-15]
    grads = [(rng.normal(size=(3, 3, 4, 5)) * scale).astype(np.float32) for scale in scales]
    for g, u in zip(grads, rescaled(grads), strict=True):
        wide = g.astype(np.float64)
        expected = wide / max(np.linalg.norm(wide), 1e-12) * np.sqrt(wide.size) / 5
        np.testing.assert_allclose(u, expected, rtol=(180 / 2 + 7) * EPSILON)


def test_leaves_are_rescaled_apart_and_zero_stays_zero():
    g = {
        "a": np.array([3, 4], np.float32),
        "b": {"c": np.zeros((2, 3), np.float32), "d": np.float32(-7)},
    }
    u = rescaled(g)
    # norm 5 and k = 2: 0.2 · sqrt 2 / 5 times (3, 4)
    assert u["a"].tolist() == pytest.approx([0.12 * 2**0.5, 0.16 * 2**0.5], rel=8 * EPSILON)
    assert not np.any(u["b"]["c"])
    assert float(u["b"]["d"]) == pytest.approx(-0.2, rel=8 * EPSILON)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_dtypes_stay_with_their_norm_in_float32(dtype):
    u = rescaled(np.full((256, 256), 300, dtype))  # whose square is beyond float16
    assert u.dtype == dtype
    assert (np.asarray(u) == np.asarray(0.2, dtype)).all()


def test_does_not_recompile():
    transformation = optax.chain(adder_rate(), optax.trace(0.9))

    @jax.jit
    @chex.assert_max_traces(n=1)
    def update(g, state):
        return transformation.update(g, state)

    g = jnp.arange(3.0)
    state = transformation.init(g)
    for step in range(3):
        _, state = update(g + step, state)


def descend(loss, w, steps, rate, momentum=0.0):
    """Where `steps` updates lead whose length falls linearly from `rate` times sqrt(k)."""
    schedule = optax.linear_schedule(rate, 0, steps)
    transformation = optax.chain(adder_rate(1.0), optax.sgd(schedule, momentum))

    def step(carry, _):
        w, state = carry
        updates, state = transformation.update(jax.grad(loss)(w), state)
        return (optax.apply_updates(w, updates), state), None

    return jax.jit(lambda w: jax.lax.scan(step, (w, transformation.init(w)), length=steps)[0][0])(w)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_reaches_the_minimum_of_a_parabola_within_a_step(scale):
    target = jnp.array([3.0, -4.0, 0.5, 2.0])
    w = descend(lambda w: scale * jnp.sum(jnp.square(w - target)), jnp.zeros(4), 200, 0.1)
    # Steps go straight at the target, d -> |d - s| with s from 0.2 down by a 200th of it: at the
    # end d is no more than the last step, 0.2 / 200. Positions round to 2^-23 each of 200 times.
    assert np.linalg.norm(w - target) <= 0.2 / 200 + 200 * 2**-22


def test_minimises_rosenbrock():
    def rosenbrock(w):
        return (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2

    w = descend(rosenbrock, jnp.array([-1.0, 1.0]), 5000, 0.01, momentum=0.9)
    np.testing.assert_allclose(w, [1, 1], atol=0.01)


def test_under_partition_it_touches_adder_kernels_only():
    same = optax.identity()
    optimizer = optax.partition({"adder": adder_rate(), "binary": same, "float": same}, labels)
    names = ("adder_kernel", "binary_kernel", "kernel", "bias", "scale")
    g: Any = {"layer": {name: np.full(4, 3, np.float32) for name in names}}
    updates: Any = jax.jit(optimizer.update)(g, optimizer.init(g), g)[0]
    for name in names:
        if name == "adder_kernel":
            assert updates["layer"][name].tolist() == pytest.approx([0.2] * 4, rel=8 * EPSILON)
        else:
            assert updates["layer"][name].tolist() == [3] * 4
