"""Latent weights stay in [-1, 1] to the bit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.errors import InputError
from nnlab.optim import (
    adder_recipe,
    center_and_clip,
    clip_latent_weights,
    glorot_rate,
)

CLIP = clip_latent_weights()


@jax.jit
def updated(p, u):
    return optax.apply_updates(p, CLIP.update(u, CLIP.init(p), p)[0])


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-1, 1, width=32), floats), min_size=8, max_size=8))
def test_no_rounding_leads_outside(pairs):
    p, u = np.array(pairs, np.float32).T
    after = np.asarray(updated(p, u))
    assert (np.abs(after) <= 1).all()
    # Inside, p + ((p + u) - p) rounds three times, p + u once, each by 2^-25 at most.
    expected = np.clip(np.asarray(p, np.float64) + np.asarray(u, np.float64), -1, 1)
    np.testing.assert_allclose(after, expected, rtol=0, atol=3 * 2**-25)


def test_golden_values():
    p = {"w": jnp.array([0.5, 0.5, -0.75, -1.0, 2.0])}
    u = {"w": jnp.array([0.25, 0.75, -1.0, 0.5, 0.0])}
    assert updated(p, u)["w"].tolist() == [0.75, 1.0, -1.0, -0.5, 1.0]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_dtypes(dtype):
    p, u = jnp.array([0.9, -0.3, 1.0], dtype), jnp.array([0.7, -0.9, -0.5], dtype)
    after = updated(p, u)
    assert after.dtype == dtype and after.tolist() == [1, -1, 0.5]


def test_a_weight_beyond_comes_back_where_sgd_alone_lets_it_drift():
    def descend(optimizer):
        w: Any = jnp.float32(0.5)
        state = optimizer.init(w)
        for gradient in [-1.0] * 10 + [1.0] * 3:
            updates, state = optimizer.update(jnp.float32(gradient), state, w)
            w = optax.apply_updates(w, updates)
        return float(w)

    assert descend(optax.sgd(0.25)) == 0.5 + 7 * 0.25
    assert descend(optax.chain(optax.sgd(0.25), CLIP)) == 1 - 3 * 0.25


def test_the_error_without_parameters_says_what_to_pass():
    with pytest.raises(ValueError, match=r"needs the parameters: update\(updates, state, params\)"):
        CLIP.update(jnp.ones(2), CLIP.init(jnp.ones(2)))


def test_centred_weights_have_no_mean_over_inputs_and_stay_inside():
    rng = np.random.default_rng(0)
    p, u = (jnp.asarray(rng.normal(size=(3, 2, 4, 5)), jnp.float32) for _ in range(2))
    optimizer = center_and_clip()
    updates: Any = optimizer.update({"w": u}, optimizer.init({"w": p}), {"w": p})[0]
    after = np.asarray(p + updates["w"])
    new = np.asarray(p, np.float64) + np.asarray(u, np.float64)
    centred = new - new.mean(axis=2, keepdims=True)
    assert np.abs(centred).max() > 1
    # A sum, a mean of 4, two differences and a sum: ten roundings of 2^-24 of numbers below 8.
    np.testing.assert_allclose(after, np.clip(centred, -1, 1), rtol=0, atol=10 * 8 * 2**-24)


def test_centre_by_hand():
    # Inputs are the first of two axes: 0.5 + 0.25 and 0.25 have the mean 0.5, -1 and 3 that of 1.
    p, u = jnp.array([[0.5, -1.0], [0.25, 3.0]]), jnp.array([[0.25, 0.0], [0.0, 0.0]])
    updates: Any = center_and_clip().update(u, optax.EmptyState(), p)[0]
    assert (p + updates).tolist() == [[0.25, -1], [-0.25, 1]]
    single: Any = center_and_clip().update(u[:1], optax.EmptyState(), p[:1])[0]
    assert (p[:1] + single).tolist() == [[0, 0]]


def test_glorot_rate():
    # Fans 3.2.4 and 3.2.5: 54 / 1.5 is 36. Fans 4 and 2: 6 / 1.5 is 4.
    updates = {"conv": jnp.full((3, 2, 4, 5), 0.5), "dense": jnp.full((4, 2), 0.5)}
    scaled: Any = glorot_rate().update(updates, optax.EmptyState())[0]
    np.testing.assert_array_equal(scaled["conv"], 3)
    np.testing.assert_array_equal(scaled["dense"], 1)


def test_the_parts_of_a_recipe_for_binary_weights():
    params = {"binary_kernel": jnp.zeros((4, 2)), "kernel": jnp.zeros(3)}
    for last, expected in ((clip_latent_weights(), -0.5), (center_and_clip(), 0)):
        binary = optax.chain(optax.sgd(0.25), glorot_rate(), last)
        optimizer = adder_recipe(10, 0.5, weight_decay=0.0, parts={"binary": binary})
        gradients = jax.tree.map(jnp.ones_like, params)
        updates: Any = jax.jit(optimizer.update)(gradients, optimizer.init(params), params)[0]
        np.testing.assert_array_equal(updates["binary_kernel"], expected)
        np.testing.assert_array_equal(updates["kernel"], -0.5)


@pytest.mark.parametrize("name", ["center_and_clip", "glorot_rate"])
def test_kernels_only(name):
    optimizer = {"center_and_clip": center_and_clip, "glorot_rate": glorot_rate}[name]()
    with pytest.raises(InputError, match=rf"^{name} is for kernels .* weights \(3,\)\.$"):
        optimizer.update(jnp.ones(3), optax.EmptyState(), jnp.ones(3))
    with pytest.raises(ValueError, match=r"^center_and_clip needs the parameters"):
        center_and_clip().update(jnp.ones((2, 2)), optax.EmptyState())
