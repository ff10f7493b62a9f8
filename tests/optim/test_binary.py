"""Latent weights stay in [-1, 1] to the bit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.optim import clip_latent_weights

CLIP = clip_latent_weights()


@jax.jit
def updated(p, u):
    return optax.apply_updates(p, CLIP.update(u, CLIP.init(p), p)[0])


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-1, 1, width=32), floats), min_size=8, max_size=8))
def test_no_rounding_leads_outside(pairs):
    p, u = jnp.asarray(pairs, jnp.float32).T
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
