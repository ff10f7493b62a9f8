"""The power activation: values, true gradients, and what holds at 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.ops.power import power_activation
from nnlab.testing import check_gradient_rule


@jax.jit
def passes(y, alpha, g):
    value, pull = jax.vjp(power_activation, y, alpha)
    return value, *pull(g)


def power(y, alpha):
    return jnp.sign(y) * jnp.abs(y) ** alpha


@pytest.mark.parametrize("alpha", [0.5, 1.7])
def test_gradient_of_the_input(alpha):
    y = np.asarray(np.linspace(-1.5, 1.5, 14).reshape(2, 7), np.float32)  # without 0
    check_gradient_rule(
        lambda y: power_activation(y, jnp.array(alpha)),
        [y],
        value=lambda y: np.sign(y) * np.abs(y) ** alpha,
        potentials=[lambda y: power(y, alpha)],
        thorough=alpha == 0.5,
    )


def test_gradient_of_the_exponent():
    y, g = np.array([-2.0, -0.5, 0.3, 4.0]), np.array([1.0, -2.0, 0.5, 0.25])
    *_, dalpha = passes(
        np.asarray(y, np.float32), np.asarray(1.5, np.float32), np.asarray(g, np.float32)
    )
    # d/d alpha |y|^alpha = |y|^alpha ln |y|; at 4, 8 ln 4 / 4 alone is 2.77.
    expected = (g * np.sign(y) * np.abs(y) ** 1.5 * np.log(np.abs(y))).sum()
    np.testing.assert_allclose(dalpha, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_at_0_all_is_0(alpha, dtype):
    y, dy, dalpha = passes(
        np.array([0.0, -0.0], dtype), np.asarray(alpha, np.float32), np.ones(2, dtype)
    )
    assert y.dtype == dy.dtype == dtype
    assert y.tolist() == dy.tolist() == [0, 0] and dalpha == 0


def test_nan_stays_and_errors_name_what_was_given():
    assert jnp.isnan(power_activation(jnp.array(jnp.nan), jnp.array(1.0)))
    with pytest.raises(ValueError, match=r"expects a scalar alpha, not shape \(2,\)"):
        power_activation(jnp.ones(3), jnp.ones(2))
    with pytest.raises(TypeError, match="expects a floating y, not int32"):
        power_activation(jnp.ones(3, int), jnp.array(1.0))
