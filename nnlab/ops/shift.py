r"""Weights that are signed powers of two: a product is a shift (DeepShift-Q).

.. math:: \hat w = \mathrm{sgn}(w)\,2^{s}, \qquad
          s = \mathrm{clip}(\mathrm{round}(\log_2 |w|), -(2^{b-1} - 2), 0)              (1)

for b bits a weight, one of the sign. The cotangent of w is that of the quantised weight, the true
gradient of the potential w. A weight of 0 stays 0, which has no code of its own and does not occur.

References:
    Elhoushi et al., DeepShift, CVPR Workshops 2021, https://arxiv.org/abs/1905.13298.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from nnlab.ops.products import shift_conv
from nnlab.ops.straight_through import stored_in, straight_through
from nnlab.ops.windows import Padding


def shift_q_weights(w: jax.Array, bits: int = 5) -> jax.Array:
    """The nearest power of two in the exponent (1), straight-through.

    Args:
        w: any shape, floating.
        bits: of a weight, at least 2.

    Raises:
        ValueError: fewer bits.
    """
    if bits < 2:
        raise ValueError(f"shift_q_weights expects at least 2 bits, not {bits}.")

    def rounded(w):
        smallest = -(2 ** (bits - 1) - 2)
        exponent = jnp.clip(jnp.round(jnp.log2(jnp.abs(w))), smallest, 0)
        return jnp.sign(w) * jnp.exp2(exponent).astype(w.dtype)

    return straight_through(stored_in(bits, rounded)(w), w)


def shift_q_conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    bits: int = 5,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
) -> jax.Array:
    """Convolution by the weights (1) of `kernel`; the options are those of `shift_conv`."""
    return shift_conv(
        x,
        shift_q_weights(kernel, bits),
        strides=strides,
        padding=padding,
        kernel_dilation=kernel_dilation,
    )
