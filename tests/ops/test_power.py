"""The power activation: values, true gradients, and what holds at 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.ops.power import power_activation
from nnlab.testing import check_gradient_rule


def power(y, alpha):
    return jnp.sign(y) * jnp.abs(y) ** alpha


@pytest.mark.parametrize("alpha", [0.5, 1.7])
def test_gradient_of_the_input(alpha):
    y = jnp.asarray(np.linspace(-1.5, 1.5, 14).reshape(2, 7), jnp.float32)  # without 0
    check_gradient_rule(
        lambda y: power_activation(y, jnp.array(alpha)),
        [y],
        value=lambda y: power(y, alpha),
        potentials=[lambda y: power(y, alpha)],
    )


def test_gradient_of_the_exponent():
    y, g = np.array([-2.0, -0.5, 0.3, 4.0]), np.array([1.0, -2.0, 0.5, 0.25])
    _, pull = jax.vjp(power_activation, jnp.float32(y), jnp.float32(1.5))
    # d/d alpha |y|^alpha = |y|^alpha ln |y|; at 4, 8 ln 4 / 4 alone is 2.77.
    expected = (g * np.sign(y) * np.abs(y) ** 1.5 * np.log(np.abs(y))).sum()
    np.testing.assert_allclose(pull(jnp.float32(g))[1], expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_at_0_all_is_0(alpha, dtype):
    y, pull = jax.vjp(power_activation, jnp.array([0.0, -0.0], dtype), jnp.array(alpha))
    dy, dalpha = pull(jnp.ones_like(y))
    assert y.dtype == dy.dtype == dtype
    assert y.tolist() == dy.tolist() == [0, 0] and dalpha == 0


def test_nan_stays_and_errors_name_what_was_given():
    assert jnp.isnan(power_activation(jnp.array(jnp.nan), jnp.array(1.0)))
    with pytest.raises(ValueError, match=r"expects a scalar alpha, not shape \(2,\)"):
        power_activation(jnp.ones(3), jnp.ones(2))
    with pytest.raises(TypeError, match="expects a floating y, not int32"):
        power_activation(jnp.ones(3, int), jnp.array(1.0))
