r"""Products of your own: sums of any elementwise term of an input and a weight.

.. math:: y_{po} = \sum_k f(x_{pk}, w_{ko})                                            (1)

for every position p, input k of its window and filter o. A pixel of padding is a zero like any
other and contributes :math:`f(0, w)`. The reverse-mode rules are functions of the same kind:

=============  =======================================================
cotangent of   rule
=============  =======================================================
w (filter)     dw_ko = sum_p g_po filter_rule(x_pk, w_ko)          (2)
x (input)      dx_pk = sum_o g_po input_rule(x_pk, w_ko)           (3)
=============  =======================================================

A rule that is left out is the derivative of f. Any other is a choice, which should be the true
gradient of some potential :math:`\sum_k \phi(x_{pk}, w_{ko})`: say of which, and test it.

Rules are expected to be finite for finite numbers: where one is not, a cotangent of 0 gives NaN, at
the edges of an image as well for pairs that do not meet. Sums are taken in float32 at least,
whatever the dtype of the operands. Nothing of size [positions, in, out] exists. Sums of
:math:`u(x)\,v(w)`, and rules :math:`u(x) \pm v(w)` such as AdderNet's x - w, are taken as those of
a float layer, with its speed (`nnlab.kernels.term_products`).
"""

import functools
from typing import Any

import jax

from nnlab.kernels import terms as kernels
from nnlab.kernels.derivatives import reverse_rule
from nnlab.kernels.terms import Function as Function
from nnlab.kernels.terms import Term as Term
from nnlab.ops.front import check_dense_operands, over_rows, over_windows


def term_dense(x: jax.Array, kernel: jax.Array, term: Term) -> jax.Array:
    """Sum a term (1) over the inputs of vectors and the columns of `kernel`.

    Args:
        x: inputs [..., in], floating.
        kernel: weights [in, out], floating.
        term: value and rules.

    Returns:
        [..., out], in the promoted dtype of the operands.

    Raises:
        ValueError: ranks or sizes do not fit.
        TypeError: an operand is not floating.
    """
    check_dense_operands("term_dense", x, kernel)
    return over_rows(functools.partial(term_conv, term=term), x, kernel)


def term_conv(x: jax.Array, kernel: jax.Array, term: Term, **window: Any) -> jax.Array:
    """Sum a term (1) over windows of images, sequences or volumes.

    Args:
        x: images [batch, height, width, in], sequences [batch, time, in] or volumes
            [batch, depth, height, width, in], floating.
        kernel: filters [kh, kw, in, out], [k, in, out] or [kd, kh, kw, in, out], floating.
        term: value and rules.
        **window: strides, padding and kernel_dilation of `nnlab.ops.adder.adder_conv`.

    Returns:
        [batch, out height, out width, out], or with the axes of `x` in place of these two, in the
        promoted dtype of the operands.

    Raises:
        ValueError: ranks, sizes or window do not fit.
        TypeError: an operand is not floating.
    """

    def body(x, kernel, window):
        return _term_conv(x, kernel, window, term)

    return over_windows("term_conv", body, x, kernel, **window, widen=True)


@functools.partial(reverse_rule, nondiff_argnums=(2, 3))
def _term_conv(x, kernel, window, term) -> jax.Array:
    return kernels.term_conv(x, kernel, window=window, term=term)  # (1)


def _term_conv_fwd(x, kernel, window, term):
    return _term_conv(x, kernel, window, term), (x, kernel)


def _term_conv_bwd(window, term, residuals, g):
    x, w = residuals
    dx = kernels.term_conv_input_gradient(g, x, w, window=window, term=term)  # (3)
    return dx, kernels.term_conv_filter_gradient(g, x, w, window=window, term=term)  # (2)


_term_conv.defvjp(_term_conv_fwd, _term_conv_bwd)
