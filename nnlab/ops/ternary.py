r"""Ternary weight networks: real inputs, weights -1, 0 and +1 with one scale a layer.

.. math:: y = \alpha\, (x * t(w)), \qquad
          t(w) = 1[w \ge \Delta] - 1[w \le -\Delta]                                        (1)

    \Delta = 0.7\, \overline{|w|}, \qquad
    \alpha = \text{mean of } |w| \text{ over } |w| \ge \Delta                               (2)

The rule of w is the cotangent of q = alpha t(w) as it is, the true gradient of the potential w; the
product's cotangents are those of the convolution by q. The paper sets weights exactly at the
threshold to 0; larq and this op set them to +1 or -1. Where all weights are 0, so is alpha.

References:
    Li et al., Ternary Weight Networks, 2016, https://arxiv.org/abs/1605.04711, section 2.
"""

import jax
import jax.numpy as jnp

from nnlab.ops.estimators import ternarize, ternary_threshold
from nnlab.ops.products import signed_conv
from nnlab.ops.scaled import scaled_conv
from nnlab.ops.straight_through import stored_in


def _codes_and_scale(w):
    codes = ternarize(w, ternary_threshold(w))  # (1)
    used = jnp.abs(codes).astype(jnp.promote_types(w.dtype, jnp.float32))
    scale = jnp.sum(used * jnp.abs(w)) / jnp.maximum(jnp.sum(used), 1)  # (2)
    return codes, scale.astype(w.dtype)


ternary_weights = stored_in(2, _codes_and_scale)


def ternary_conv(x: jax.Array, kernel: jax.Array, **window) -> jax.Array:
    """Convolve by ternary weights (1).

    Args:
        x: images, sequences or volumes [batch, *sizes, in], floating.
        kernel: real weights [*taps, in, out], floating.
        **window: strides, padding and kernel_dilation of `nnlab.ops.convolution.conv`, whose
            result and errors these are.
    """
    return scaled_conv(x, kernel, product=signed_conv, quantizer=ternary_weights, **window)
