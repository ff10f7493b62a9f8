r"""Bi-Real Net: signs of inputs, and signs of weights times the mean magnitude of their filter.

.. math:: y_{po} = m_o \sum_k \mathrm{sgn}(x_{pk})\, \mathrm{sgn}(w_{ko}), \qquad
          m_o = \frac{1}{n} \sum_k |w_{ko}|                                                (1)

with sgn 0 = +1 and n the number of terms of a filter.

===========  ============================================================  ===================
cotangent    rule                                                          potential
===========  ============================================================  ===================
of x         g_b 2 max(0, 1 - abs(x)), g_b that of sgn x              (2)  2 y - y abs(y)
of w         g_q m 1[abs(w) <= 1], g_q that of q = m sgn w            (3)  m clip(w, -1, 1)
===========  ============================================================  ===================

with y = clip(x, -1, 1) and m held constant. The other half of Bi-Real Net, a shortcut around every
convolution that carries real numbers, belongs to the architecture.

References:
    Liu et al., Bi-Real Net, ECCV 2018, https://arxiv.org/abs/1808.00278, section 3.
"""

import jax
import jax.numpy as jnp

from nnlab.ops.binary import binary_conv
from nnlab.ops.estimators import approx_sign
from nnlab.ops.scaled import by_filter, scaled_conv, signs_by_filter


def bireal_conv(x: jax.Array, kernel: jax.Array, **window) -> jax.Array:
    """Convolve by scaled signs (1).

    Args:
        x: images, sequences or volumes [batch, *sizes, in], floating.
        kernel: real weights [*taps, in, out], floating.
        **window: strides, padding and kernel_dilation of `nnlab.ops.convolution.conv`, whose
            result and errors these are.
    """
    return scaled_conv(
        approx_sign(x),  # (2)
        kernel,
        product=binary_conv,
        quantizer=signs_by_filter,
        rule=_magnitude_aware,
        **window,
    )


def _magnitude_aware(w, scale, g):
    return jnp.where(jnp.abs(w) <= 1, g * by_filter(scale, w), 0)  # (3)
