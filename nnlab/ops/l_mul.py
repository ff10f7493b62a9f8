r"""L-Mul: the products of floats, approximated by sums of their exponents and fractions.

With :math:`x = \pm 2^{x_e} (1 + x_m)` and the same for w,

.. math:: f(x, w) = \pm 2^{x_e + w_e} \left(1 + x_m + w_m + 2^{-l}\right), \qquad
          l = \min(m, 4), \text{ but 3 for } m = 4,                                           (1)

    y_{po} = \sum_k f(x_{pk}, w_{ko})                                                         (2)

for operands of m bits of fraction; the sign is that of the product. The form "add" takes the bits
of both as integers and adds them, less a constant. So the whole part n of
:math:`s = x_m + w_m + 2^{-l}` carries into the exponent, and the result is
:math:`\pm 2^{x_e + w_e + n} (1 + s - n)`. The form "formula" is (1) as written.
Of 1.75 and 1.75 they make 3.125 and 2.5625; over uniform fractions their errors are 0.4 % and
-6.4 % on average, and 7.3 % and 23 % at most.

Zeros, infinities and NaN make what they make in a product; a subnormal operand counts as 0.

===========  ============================  =========
cotangent    rule                          potential
===========  ============================  =========
of x         that of the convolution  (3)  x w
of w         that of the convolution  (4)  x w
===========  ============================  =========

Both are straight-through: the true slopes of (1) are the powers of two below w and x, and are 0 for
numbers that are rounded. The backward pass multiplies.

References:
    Luo & Sun, Addition is All You Need for Energy-efficient Language Models, 2024,
    https://arxiv.org/abs/2410.00907, eq. 1 for (1). Mitchell, Computer multiplication and division
    using binary logarithms, 1962, for the form "add" without the constant.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.kernels import l_mul as kernels
from nnlab.kernels.derivatives import reverse_rule
from nnlab.ops.attention import (
    Window,
    factor_of,
    head_products,
    heads_first,
    masked_softmax,
    pairs_allowed,
)
from nnlab.ops.convolution import conv_cotangents
from nnlab.ops.front import over_windows
from nnlab.ops.straight_through import straight_through

Form = Literal["add", "formula"]


def offset_exponent(mantissa_bits: int) -> int:
    """Return l of (1) for operands of so many bits of fraction."""
    return min(mantissa_bits, 4) if mantissa_bits != 4 else 3


def check_l_mul(form: str, mantissa_bits: int) -> None:
    """Raise a ValueError unless form and bits are those that `l_mul_conv` takes."""
    if form not in ("add", "formula"):
        raise ValueError(f'form must be "add" or "formula", not {form!r}.')
    if mantissa_bits not in range(1, 24):
        raise ValueError(f"mantissa_bits must be an integer from 1 to 23, not {mantissa_bits!r}.")


def l_mul_conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    form: Form = "add",
    mantissa_bits: int = 23,
    **window,
) -> jax.Array:
    """Convolve by sums in place of products (2), in float32 at least.

    Args:
        x: images, sequences or volumes [batch, *sizes, in], floating.
        kernel: real weights [*taps, in, out], floating.
        form: "add" or "formula", see above.
        mantissa_bits: m, to which both operands are rounded first; 23 is float32 as it is.
        **window: strides, padding and kernel_dilation of `nnlab.ops.convolution.conv`, whose
            result and errors these are.

    Raises:
        ValueError: also for another form or number of bits.
    """
    check_l_mul(form, mantissa_bits)

    def body(x, kernel, window):
        if mantissa_bits < 23:
            x, kernel = (
                straight_through(lax.reduce_precision(lax.stop_gradient(a), 8, mantissa_bits), a)
                for a in (x, kernel)
            )
        return _l_mul_conv(x, kernel, window, offset_exponent(mantissa_bits), form == "add")

    return over_windows("l_mul_conv", body, x, kernel, widen=True, **window)


@functools.partial(reverse_rule, nondiff_argnums=(2, 3, 4))
def _l_mul_conv(x, kernel, window, shift, carry) -> jax.Array:
    return kernels.l_mul_conv(x, kernel, window=window, shift=shift, carry=carry)


def _l_mul_conv_fwd(x, kernel, window, shift, carry):
    return _l_mul_conv(x, kernel, window, shift, carry), (x, kernel)


def _l_mul_conv_bwd(window, shift, carry, residuals, g):
    return conv_cotangents(window, residuals, g)  # (3), (4)


_l_mul_conv.defvjp(_l_mul_conv_fwd, _l_mul_conv_bwd)


def l_mul_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    mask: jax.Array | None = None,
    is_causal: bool = False,
    local_window_size: Window = None,
    scale: float | None = None,
    form: Form = "add",
    mantissa_bits: int = 23,
) -> jax.Array:
    """Attend with both products, of queries and keys and of the map and values, as sums (2).

    The arguments and the shape of the result are those of `jax.nn.dot_product_attention`; for
    `form` and `mantissa_bits` see `l_mul_conv`.

    Raises:
        InputError: see `nnlab.ops.attention.heads_first`.
    """
    product = functools.partial(
        head_products, functools.partial(l_mul_conv, form=form, mantissa_bits=mantissa_bits)
    )
    allowed = pairs_allowed(query, key, mask, is_causal, local_window_size)
    queries, keys, values = heads_first(query, key, value)
    scores = product(queries, keys) * factor_of(query, scale)
    return jnp.swapaxes(product(masked_softmax(scores, allowed), values), 1, 2)
