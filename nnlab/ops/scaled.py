r"""Weights that are simple numbers times a scale: the simple numbers multiply, the scale follows.

A quantiser turns real weights w into codes c (signs, or -1, 0 and +1) and a scale s, one for each
filter or one for all. The two sides of

.. math:: y = s \cdot (x * c) = x * (s\, c)                                                 (1)

have the same value; the first has one multiplication for each output, the second one for each term.
Codes and scales are what is stored. The cotangents are those of the second form:

===========  ============================================  ============================
cotangent    rule                                          potential
===========  ============================================  ============================
of x         that of x * (s c)                        (2)  x * (s c)
of w         rule(w, s, g_q), where g_q is the        (3)  the quantiser's business
             cotangent that x * q has of q, at q = s c
===========  ============================================  ============================

=================================  ===================  =======================  ======
quantiser                          codes                scale                    stored
=================================  ===================  =======================  ======
signs_by_filter (XNOR-Net)         sgn w                mean of abs(w) a filter  1 bit
signs_by_layer (DoReFa)            sgn w                mean of abs(w)           1 bit
centred_signs_by_filter (BiBERT)   sgn(w - mean of w    mean of abs(w) a filter  1 bit
                                   a filter)
centred_signs_by_layer (BitNet     sgn(w - mean of w)   mean of abs(w)           1 bit
b1, BiT)
=================================  ===================  =======================  ======

with sgn 0 = +1. Whoever stores such weights stores what `export_weights` returns, codes and scale
together: a scale that is computed again from the quantised weights is another one.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.kernels.derivatives import reverse_rule
from nnlab.ops.binary import sign_ste
from nnlab.ops.convolution import conv_cotangents
from nnlab.ops.front import Product, check_operands, over_windows
from nnlab.ops.straight_through import stored_in, straight_through

ScaledQuantizer = Callable[[jax.Array], tuple[jax.Array, jax.Array]]
Rule = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def _signs_by_filter(w):
    return sign_ste(w), jnp.abs(w).mean(axis=range(w.ndim - 1))


def _signs_by_layer(w):
    return sign_ste(w), jnp.abs(w).mean()


def _centred_signs_by_filter(w):
    scale = jnp.abs(w).mean(axis=range(w.ndim - 1))
    return sign_ste(w - w.mean(axis=range(w.ndim - 1), keepdims=True)), scale


def _centred_signs_by_layer(w):
    return sign_ste(w - w.mean()), jnp.abs(w).mean()


signs_by_filter = stored_in(1, _signs_by_filter)
signs_by_layer = stored_in(1, _signs_by_layer)
centred_signs_by_filter = stored_in(1, _centred_signs_by_filter)
centred_signs_by_layer = stored_in(1, _centred_signs_by_layer)


def export_weights(kernel: jax.Array, quantizer: ScaledQuantizer) -> tuple[jax.Array, jax.Array]:
    """Return what is stored of real weights: codes, int8, and their scale, float32.

    Args:
        kernel: real weights [*taps, in, out], floating and finite.
        quantizer: of the table above, or `nnlab.ops.bitnet.ternary_by_mean` and the like.

    Returns:
        Codes of the shape of `kernel`, and a scale [] or [out].
    """
    codes, scale = quantizer(kernel)
    return codes.astype(jnp.int8), scale.astype(jnp.float32)


def by_filter(scale: jax.Array, like: jax.Array) -> jax.Array:
    """Give a scale [out] the rank of `like` [..., out]; a scalar stays one."""
    return lax.broadcast_to_rank(scale, like.ndim) if scale.ndim else scale


def straight(w: jax.Array, scale: jax.Array, g: jax.Array) -> jax.Array:
    """Return g, the rule (3) of most quantisers: the true gradient of the potential w."""
    return g


def scaled_conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    product: Product,
    quantizer: ScaledQuantizer,
    rule: Rule = straight,
    **window,
) -> jax.Array:
    """Convolve by quantised weights (1).

    Args:
        x: images, sequences or volumes [batch, *sizes, in], floating.
        kernel: real weights [*taps, in, out], floating.
        product: product of x and codes, such as `nnlab.ops.products.signed_conv`.
        quantizer: takes real weights to codes of the same shape and a scale [out] or []; see
            `nnlab.ops.straight_through.stored_in`.
        rule: cotangent (3) of `kernel`, linear in its last argument.
        **window: strides, padding and kernel_dilation of `nnlab.ops.convolution.conv`, whose
            result and errors these are.
    """
    name = getattr(product, "__name__", "scaled_conv")
    check_operands(name, x, kernel)
    dtype = jnp.promote_types(x.dtype, kernel.dtype)
    quantised: Any = _quantized_weights(kernel.astype(dtype), quantizer, rule)
    body = functools.partial(_scaled_product, product)
    return over_windows(name, body, x, *quantised, **window)


@functools.partial(reverse_rule, nondiff_argnums=(1, 2))
def _quantized_weights(w, quantizer, rule):
    """Codes and scale; what comes back as the cotangent of the codes is that of q."""
    return quantizer(w)


def _quantized_weights_fwd(w, quantizer, rule):
    quantised: Any = _quantized_weights(w, quantizer, rule)
    return quantised, (w, quantised[1])


def _quantized_weights_bwd(quantizer, rule, residuals, cotangents):
    return (rule(*residuals, cotangents[0]),)  # (3)


_quantized_weights.defvjp(_quantized_weights_fwd, _quantized_weights_bwd)


@functools.partial(reverse_rule, nondiff_argnums=(0, 4))
def _scaled_product(product, x, codes, scale, window) -> jax.Array:
    strides, padding, dilation = window
    y = product(x, codes, strides=strides, padding=padding, kernel_dilation=dilation)
    return by_filter(scale, y) * y  # (1)


def _scaled_product_fwd(product, x, codes, scale, window):
    return _scaled_product(product, x, codes, scale, window), (x, codes, scale)


def _scaled_product_bwd(product, window, residuals, g):
    x, codes, scale = residuals
    q = straight_through(by_filter(scale, codes) * codes, codes)  # (3) starts from q's cotangent
    dx, dq = conv_cotangents(window, (x, q), g)  # (2)
    return dx, dq, jnp.zeros_like(scale)


_scaled_product.defvjp(_scaled_product_fwd, _scaled_product_bwd)
