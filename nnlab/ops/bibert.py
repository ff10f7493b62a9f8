r"""BiBERT: binary weights, activations and attention, without a softmax.

.. math:: y_{po} = \alpha_o \sum_k \mathrm{sgn}(x_{pk})\, \mathrm{sgn}(w_{ko} - \mu_o), \qquad
          \alpha_o = \overline{|w_{\cdot o}|}, \quad \mu_o = \overline{w_{\cdot o}}           (1)

.. math:: p_{ts} = 1\!\left[\frac{1}{\sqrt h} \sum_i
          \mathrm{sgn}(q_{ti})\, \mathrm{sgn}(k_{si}) > 0\right], \qquad
          y_t = \sum_s p_{ts}\, \mathrm{sgn}(v_s)                                              (2)

with sgn 0 = +1, where PyTorch's code has 0. The attention (2) has no softmax: a query sees the keys
that agree with it in more than half of their signs, all alike. What a mask hides is 0.

=================  ==========================================================  =================
cotangent          rule                                                        potential
=================  ==========================================================  =================
of x, q, k and v   g 1[abs(x) <= 1], g that of the sign                   (3)  clip(x, -1, 1)
of w               c 1[abs(w - mu) <= 1] less its mean over a filter,     (4)  clip(w - mu, -1, 1)
                   c that of alpha sgn(w - mu)
of a score         g 1[abs(score) <= 1], g that of p                      (5)  clip(score, -1, 1)
=================  ==========================================================  =================

References:
    Qin et al., BiBERT: Accurate Fully Binarized BERT, ICLR 2022,
    https://arxiv.org/abs/2203.06390, section 3, and its code (utils_quant.py, modeling_quant.py).
"""

import functools

import jax
import jax.numpy as jnp

from nnlab.ops.attention import (
    Window,
    factor_of,
    head_products,
    heads_first,
    pairs_allowed,
)
from nnlab.ops.binary import binary_conv, sign_ste
from nnlab.ops.estimators import ste_heaviside
from nnlab.ops.scaled import centred_signs_by_filter, scaled_conv


def _weight_rule(w, scale, g):
    axes = range(w.ndim - 1)
    inside = jnp.abs(w - w.mean(axis=axes, keepdims=True)) <= 1
    g = jnp.where(inside, g, jnp.zeros((), g.dtype))
    return g - g.mean(axis=axes, keepdims=True)  # (4)


def bibert_conv(x: jax.Array, kernel: jax.Array, **window) -> jax.Array:
    """Convolve the signs of inputs with those of centred weights, and scale filters (1).

    Args:
        x: images, sequences or volumes [batch, *sizes, in], floating.
        kernel: real weights [*taps, in, out], floating.
        **window: strides, padding and kernel_dilation of `nnlab.ops.convolution.conv`, whose
            result and errors these are.
    """
    return scaled_conv(
        sign_ste(x),  # (3)
        kernel,
        product=binary_conv,
        quantizer=centred_signs_by_filter,
        rule=_weight_rule,
        **window,
    )


def bibert_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    mask: jax.Array | None = None,
    is_causal: bool = False,
    local_window_size: Window = None,
    scale: float | None = None,
) -> jax.Array:
    """Attend by the signs of queries, keys and values (2), of which a score counts as seen or not.

    The arguments and the shape of the result are those of `jax.nn.dot_product_attention`; `scale`
    decides how far from 0 a score still learns (5).

    Raises:
        InputError: see `nnlab.ops.attention.heads_first`.
    """
    allowed = pairs_allowed(query, key, mask, is_causal, local_window_size)
    queries, keys, values = map(sign_ste, heads_first(query, key, value))
    product = functools.partial(head_products, binary_conv)
    scores = product(queries, keys) * factor_of(query, scale)
    seen = ste_heaviside(scores)  # (5)
    if allowed is not None:
        seen = jnp.where(allowed, seen, jnp.zeros((), seen.dtype))
    return jnp.swapaxes(product(seen, values), 1, 2)  # (2)
