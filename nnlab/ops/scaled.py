r"""Weights that are simple numbers times a scale: the simple numbers multiply, the scale follows.

A quantiser makes codes c (signs, or -1, 0 and +1) and a scale s, one a filter or one in all, of
real weights w. Of the same value,

.. math:: y = s \cdot (x * c) = x * (s\, c),                                                (1)

the first form has one multiplication an output, the second one a term. What is stored are codes
and scales. The cotangents are those of the second form:

===========  ============================================  ============================
cotangent    rule                                          potential
===========  ============================================  ============================
of x         that of x * (s c)                        (2)  x * (s c)
of w         rule(w, s, g_q), where g_q is the        (3)  the quantiser's business
             cotangent that x * q has of q, at q = s c
===========  ============================================  ============================

==========================  =============================  =========================  ========
quantiser                   codes                          scale                      stored
==========================  =============================  =========================  ========
signs_by_filter (XNOR-Net)  sgn w, with sgn 0 = +1         mean of abs(w) a filter    1 bit
signs_by_layer (DoReFa)     sgn w, with sgn 0 = +1         mean of abs(w)             1 bit
==========================  =============================  =========================  ========
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from nnlab.kernels.batch import of_images, vary_alike
from nnlab.ops.binary import sign_ste
from nnlab.ops.convolution import conv_cotangents
from nnlab.ops.products import Product
from nnlab.ops.straight_through import stored_in
from nnlab.ops.windows import Padding, check_operands, window_of

ScaledQuantizer = Callable[[jax.Array], tuple[jax.Array, jax.Array]]
Rule = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def _signs_by_filter(w):
    return sign_ste(w), jnp.abs(w).mean(axis=range(w.ndim - 1))


def _signs_by_layer(w):
    return sign_ste(w), jnp.abs(w).mean()


signs_by_filter = stored_in(1, _signs_by_filter)
signs_by_layer = stored_in(1, _signs_by_layer)


def straight(w: jax.Array, scale: jax.Array, g: jax.Array) -> jax.Array:
    """The rule (3) of most quantisers: g, the true gradient of the potential w."""
    return g


def scaled_conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    product: Product,
    quantizer: ScaledQuantizer,
    rule: Rule = straight,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
) -> jax.Array:
    """Convolution (1); the options, result and errors are those of `nnlab.ops.convolution.conv`.

    Args:
        x: images [batch, height, width, in], floating.
        kernel: real weights [kh, kw, in, out], floating.
        product: of images and codes, such as `nnlab.ops.products.signed_conv`.
        quantizer: real weights to codes of the same shape and a scale [out] or []; see
            `nnlab.ops.straight_through.stored_in`.
        rule: the cotangent (3) of `kernel`, linear in its last argument.
    """
    check_operands(getattr(product, "__name__", "scaled_conv"), x, kernel)
    x, kernel = vary_alike(x, kernel)
    window = window_of(x.shape, kernel.shape, strides, padding, kernel_dilation)
    dtype = jnp.promote_types(x.dtype, kernel.dtype)
    return of_images(
        lambda *a: _scaled_conv(*a, product, quantizer, rule, window),
        x.astype(dtype),
        kernel.astype(dtype),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _scaled_conv(x, w, product, quantizer, rule, window) -> jax.Array:
    return _scaled_conv_fwd(x, w, product, quantizer, rule, window)[0]


def _scaled_conv_fwd(x, w, product, quantizer, rule, window):
    codes, scale = quantizer(w)
    strides, padding, dilation = window
    y = product(x, codes, strides=strides, padding=padding, kernel_dilation=dilation)
    return scale * y, (x, w, codes, scale)  # (1)


def _scaled_conv_bwd(product, quantizer, rule, window, residuals, g):
    x, w, codes, scale = residuals
    dx, dq = conv_cotangents(window, (x, scale * codes), g)  # (2)
    return dx, rule(w, scale, dq)  # (3)


_scaled_conv.defvjp(_scaled_conv_fwd, _scaled_conv_bwd)
