r"""Conjugate adder products: minima of magnitudes under the sign of the product.

.. math:: y_{po} = \sum_k |x_{pk} + w_{ko}| - |x_{pk} - w_{ko}|
                 = 2 \sum_k \mathrm{sgn}(x_{pk})\,\mathrm{sgn}(w_{ko})
                   \min(|x_{pk}|, |w_{ko}|)                                            (1)

for every position p, input k of its window and filter o. Like a product, a term has the sign of
x w and is 0 where either is, so that the output is centred and padding adds nothing; like the
adder's, it costs no multiplier: one comparison and one addition.

============  ==================================================  ==================
cotangent of  rule                                                potential
============  ==================================================  ==================
w (filter)    sum_p g_po [sgn(x_pk + w_ko) + sgn(x_pk - w_ko)]    abs(x + w)      (2)
                                                                  - abs(x - w)
x (input)     sum_o g_po [sgn(x_pk + w_ko) - sgn(x_pk - w_ko)]    the same        (3)
============  ==================================================  ==================

with sgn(0) = 0. These are the true gradients: off the kinks, (2) is 2 sgn(x) where abs(w) < abs(x)
and 0 elsewhere, (3) 2 sgn(w) where abs(x) < abs(w) and 0 elsewhere: the smaller of the two learns.
Sums are taken in float32 at least, whatever the dtype of the operands; an infinity of x that meets
one of w gives NaN.

References:
    CAddNet, CVPR Workshops 2022, for the product (1). Its text is not at hand, and a gradient of
    its own, if it has one, is not meant here.
"""

import functools

import jax

from nnlab.kernels import adder as kernels
from nnlab.kernels.conjugate_adder import conjugate_adder_conv as forward
from nnlab.kernels.derivatives import reverse_rule
from nnlab.ops.front import over_windows


def conjugate_adder_conv(x: jax.Array, kernel: jax.Array, **window) -> jax.Array:
    """Compute conjugate adder products (1) of windows and filters.

    Args:
        x: images, sequences or volumes [batch, *sizes, in], floating.
        kernel: filters [*taps, in, out], floating.
        **window: strides, padding and kernel_dilation of `nnlab.ops.adder.adder_conv`.

    Returns:
        [batch, *out sizes, out], in the promoted dtype of the operands.

    Raises:
        ValueError: ranks, sizes or window do not fit.
        TypeError: an operand is not floating.
    """
    body = _conjugate_adder_conv
    return over_windows("conjugate_adder_conv", body, x, kernel, **window, widen=True)


@functools.partial(reverse_rule, nondiff_argnums=(2,))
def _conjugate_adder_conv(x, kernel, window) -> jax.Array:
    return forward(x, kernel, window=window)  # (1)


def _conjugate_adder_conv_fwd(x, kernel, window):
    return _conjugate_adder_conv(x, kernel, window), (x, kernel)


def _conjugate_adder_conv_bwd(window, residuals, g):
    x, w = residuals
    dx = functools.partial(kernels.adder_conv_input_gradient, rule="sign", window=window)
    dw = functools.partial(kernels.adder_conv_filter_gradient, window=window)
    return dx(g, x, w) - dx(g, x, -w), dw(g, x, w) + dw(g, x, -w)  # (3), (2)


_conjugate_adder_conv.defvjp(_conjugate_adder_conv_fwd, _conjugate_adder_conv_bwd)
