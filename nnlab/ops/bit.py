r"""BiT: binary transformers whose activations have a learnt scale.

.. math:: y_{po} = \alpha\, \gamma \sum_k b_{pk}\, t_{ko}, \qquad
          t = \mathrm{sgn}(w - \overline{w}), \quad \gamma = \overline{|w|}                 (1)

    \text{signed:} \quad b = \mathrm{sgn}(x), \qquad
    \text{unsigned:} \quad b = \mathrm{clip}(\mathrm{round}(x / \alpha), 0, 1)              (2)

with sgn 0 = +1 (PyTorch's code has 0) and rounding to the nearest even. Unsigned bits are for what
is not negative: outputs of a ReLU, and probabilities. The layers add a learnt bias to each input
first (`nnlab.layers.BitDense`).

=========  ==========================================================  ========================
cotangent  rule, from the cotangent g of a = alpha b                   potential
=========  ==========================================================  ========================
of x       g 1[lowest <= x / alpha <= 1], lowest = -1 or 0        (3)  alpha clip(x / alpha)
of alpha   n^(-1/2) sum g r, r = b signed; unsigned b - x / alpha (4)  n^(-1/2) alpha (b + c - c'),
           inside and b outside                                        c = clip(x / alpha)
of w       that which a * w has of w                              (5)  a * w
=========  ==========================================================  ========================

where n is the number of inputs, and b and c' = c are held in the potential of (4), of which c is
not there where bits are signed. (4) is the rule of learnt step sizes (LSQ) at one bit. An alpha
below 1e-5 counts as 1e-5, and its cotangent passes.

References:
    Liu et al., BiT: Robustly Binarized Multi-distilled Transformer, NeurIPS 2022,
    https://arxiv.org/abs/2205.13016, section 3, and its code (utils_quant.py).
    Esser et al., Learned Step Size Quantization, ICLR 2020, https://arxiv.org/abs/1902.08153.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.kernels.derivatives import reverse_rule
from nnlab.ops.attention import (
    Window,
    factor_of,
    head_products,
    heads_first,
    masked_softmax,
    pairs_allowed,
)
from nnlab.ops.binary import binary_conv, sign_ste
from nnlab.ops.front import check_operands
from nnlab.ops.scaled import centred_signs_by_layer, scaled_conv

_SMALLEST = 1e-5


def _held(scale):
    """The scale that multiplies; what it learns comes from the codes alone."""
    return jnp.maximum(lax.stop_gradient(scale), _SMALLEST)


@functools.partial(reverse_rule, nondiff_argnums=(2,))
def elastic_bits(x: jax.Array, scale: jax.Array, signed: bool) -> jax.Array:
    """Return the bits b (2) of `x` (any shape, floating), of its dtype, for a scale [].

    Their rules are (3) and (4) where what is made of them is multiplied by the scale, held.
    """
    if signed:
        return sign_ste(x)  # (2)
    return jnp.clip(jnp.round(x / _held(scale).astype(x.dtype)), 0, 1)  # (2)


def _elastic_bits_fwd(x, scale, signed):
    return elastic_bits(x, scale, signed), (x, scale)


def _elastic_bits_bwd(signed, residuals, g):
    x, scale = residuals
    wide = jnp.promote_types(x.dtype, jnp.float32)
    alpha = _held(scale).astype(wide)
    u, g = x.astype(wide) / alpha, g.astype(wide) / alpha  # g is now that of alpha b
    inside = (u >= (-1 if signed else 0)) & (u <= 1)
    bits: Any = elastic_bits(x, scale, signed)
    slope = bits.astype(wide) - (0 if signed else jnp.where(inside, u, 0))
    learnt = jnp.sum(g * slope) / math.sqrt(max(x.size, 1))  # (4)
    return jnp.where(inside, g, 0).astype(x.dtype), learnt.astype(scale.dtype)  # (3)


elastic_bits.defvjp(_elastic_bits_fwd, _elastic_bits_bwd)


def initial_scale(x: jax.Array, signed: bool) -> jax.Array:
    """Return the alpha that training starts with, by its inputs: a scalar, float32 at least.

    It is 2 mean(abs(x)) for signed bits and 4 mean(abs(x)) for others, and 1 for zeros.
    """
    size = jnp.abs(x.astype(jnp.promote_types(x.dtype, jnp.float32))).mean()
    return jnp.where(size > 0, (2 if signed else 4) * size, 1)


def bit_conv(
    x: jax.Array, kernel: jax.Array, scale: jax.Array, *, signed: bool = True, **window
) -> jax.Array:
    """Convolve bits of inputs with signs of weights (1).

    Args:
        x: images, sequences or volumes [batch, *sizes, in], floating.
        kernel: real weights [*taps, in, out], floating.
        scale: alpha, a scalar.
        signed: which of (2).
        **window: strides, padding and kernel_dilation of `nnlab.ops.convolution.conv`, whose
            result and errors these are. A pixel of padding adds nothing.
    """
    check_operands("bit_conv", x, kernel)
    dtype = jnp.promote_types(x.dtype, kernel.dtype)
    bits: Any = elastic_bits(x.astype(dtype), scale, signed)
    y = scaled_conv(bits, kernel, product=binary_conv, quantizer=centred_signs_by_layer, **window)
    return _held(scale).astype(dtype) * y  # (1)


def bit_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    scales: tuple[jax.Array, jax.Array, jax.Array, jax.Array],
    *,
    mask: jax.Array | None = None,
    is_causal: bool = False,
    local_window_size: Window = None,
    scale: float | None = None,
) -> jax.Array:
    """Attend by binary queries and keys, with binary probabilities of binary values.

    The scores are those of signed bits; their softmax becomes unsigned bits. The published code
    also adds biases to queries, keys and values, and then uses them as they were.

    Args:
        scales: alpha of queries, keys, probabilities and values, scalars.
        query, key, value, mask, is_causal, local_window_size, scale: see
            `jax.nn.dot_product_attention`, whose result has this shape.

    Raises:
        InputError: see `nnlab.ops.attention.heads_first`.
    """
    allowed = pairs_allowed(query, key, mask, is_causal, local_window_size)
    queries, keys, values = heads_first(query, key, value)
    of_query, of_key, of_probability, of_value = scales
    product = functools.partial(head_products, binary_conv)

    scores = product(elastic_bits(queries, of_query, True), elastic_bits(keys, of_key, True))
    factor = _held(of_query) * _held(of_key) * factor_of(query, scale)
    probabilities = masked_softmax(factor.astype(scores.dtype) * scores, allowed)
    bits: Any = elastic_bits(probabilities, of_probability, False)
    y = product(bits, elastic_bits(values, of_value, True))
    factor = _held(of_probability) * _held(of_value)
    return jnp.swapaxes(factor.astype(y.dtype) * y, 1, 2)
