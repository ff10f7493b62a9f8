r"""The power activation of AdderSR.

.. math:: f(y, \alpha) = \mathrm{sgn}(y)\,|y|^\alpha, \qquad \alpha > 0                (1)

element by element. Sums of distances smooth an image; a power above 1 sharpens what they leave.

============  ==================================  ===============================
cotangent of  rule                                potential
============  ==================================  ===============================
y             g alpha abs(y)^(alpha-1)       (2)  (1), the true gradient, for y≠0
alpha         sum g f(y) ln abs(y)           (3)  (1), the true gradient
============  ==================================  ===============================

both 0 at y = 0: there (3) is the limit, and (2) a choice, as the slope is infinite for alpha < 1, 1
for alpha = 1 and 0 above; after a ReLU, whose own slope at 0 is 0, the choice makes no difference.

A power is taken as exp(alpha ln abs(y)), two vectorised functions, where XLA's own power is a call
for each number on a CPU; it is off by about (1 + alpha abs(ln abs(y))) 2^-23 of its size.

References:
    Song et al., AdderSR: Towards Energy Efficient Image Super-Resolution, CVPR 2021,
    https://arxiv.org/abs/2009.08891.
"""

import jax
import jax.numpy as jnp

from nnlab.kernels.batch import match_varying
from nnlab.kernels.derivatives import reverse_rule


def power_activation(y: jax.Array, alpha: jax.Array) -> jax.Array:
    """Return the signed power (1).

    Args:
        y: any shape, floating.
        alpha: scalar, floating, positive.

    Returns:
        Shape and dtype of `y`; computed in float32 or wider. A NaN stays a NaN.

    Raises:
        ValueError: alpha is not a scalar.
        TypeError: an argument is not floating.
    """
    if jnp.ndim(alpha):
        raise ValueError(f"power_activation expects a scalar alpha, not shape {jnp.shape(alpha)}.")
    for name, array in (("y", y), ("alpha", alpha)):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"power_activation expects a floating {name}, not {array.dtype}.")
    y, alpha = match_varying(y, alpha)
    wide = jnp.promote_types(y.dtype, jnp.float32)
    return _power_activation(y.astype(wide), alpha.astype(wide)).astype(y.dtype)


@reverse_rule
def _power_activation(y, alpha) -> jax.Array:
    return jnp.sign(y) * jnp.exp(alpha * jnp.log(jnp.abs(y)))  # (1)


def _power_activation_fwd(y, alpha):
    return _power_activation(y, alpha), (y, alpha)


def _power_activation_bwd(residuals, g):
    y, alpha = residuals
    zero = y == 0
    size = jnp.where(zero, 1, jnp.abs(y))
    log = jnp.log(size)
    power = jnp.exp(alpha * log)
    dy = jnp.where(zero, 0, g * alpha * power / size)  # (2)
    dalpha = jnp.sum(g * jnp.sign(y) * power * log)  # (3)
    return dy, dalpha


_power_activation.defvjp(_power_activation_fwd, _power_activation_bwd)
