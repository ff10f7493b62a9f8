r"""BitNet: weights of three values or two, activations of eight bits.

.. math:: y_{po} = \gamma\, s_b \sum_k q_{pk}\, t_{ko}                                   (1)

    \text{b1.58:} \quad t = \mathrm{clip}(\mathrm{round}(w / \gamma), -1, 1), \qquad
    \gamma = \max(\overline{|w|}, 10^{-5})                                              (2)

    \text{b1:} \quad t = \mathrm{sgn}(w - \overline{w}), \qquad \gamma = \overline{|w|}     (3)

    q = \mathrm{clip}(\mathrm{round}(127\, x / m_b), -128, 127), \qquad
    s_b = m_b / 127, \qquad m_b = \max(\max |x|, 10^{-5})                               (4)

with rounding to the nearest even: a weight of half of :math:`\gamma` becomes 0, and (2) is
sgn(w) 1[abs(w) > gamma/2]. The maximum of (4) is that of a token in a dense layer, and that of an
example in a convolution, where a window has inputs of many positions and its sum of integers one
scale. The sums are whole numbers, exact in float32 for up to 2^24 / 128 = 131,072 terms, and in
whatever order, so that they are those of an integer kernel to the bit; the layer's scale multiplies
them before the token's.

===========  =====  =================================  ================
cotangent    rule   equation                           potential
===========  =====  =================================  ================
of x         (5)    that of x * (gamma t), at x        x * (gamma t)
of w         (6)    that which (s q) * w has of w      (s q) * w
===========  =====  =================================  ================

Both quantisers are straight-through, without a clip: in a dense layer dL/dw = (s q)' g with no
factor gamma, and dL/dx = g (gamma t)'.

Weights are stored as codes t with their :math:`\gamma`. Quantising :math:`\gamma t` again keeps the
codes, but has the scale :math:`\gamma (1 - z)`, z being the share of zeros, about 0.31 for normally
distributed weights. In b1 sgn 0 is +1, where the paper has -1 and PyTorch's sign 0.

References:
    Wang et al., BitNet: Scaling 1-bit Transformers for Large Language Models, 2023,
    https://arxiv.org/abs/2310.11453, eqs. 1 to 3 for (3). Ma et al., The Era of 1-bit LLMs, 2024,
    https://arxiv.org/abs/2402.17764, and its training tips, code and FAQ
    (https://github.com/microsoft/unilm/tree/master/bitnet) for (2) and (4) to (6).
"""

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.kernels.derivatives import reverse_rule
from nnlab.ops.front import check_operands
from nnlab.ops.products import signed_int8_conv
from nnlab.ops.scaled import ScaledQuantizer, scaled_conv
from nnlab.ops.straight_through import stored_in

_SMALLEST = 1e-5  # mean of weights, maximum of activations


def _ternary_by_mean(w):
    wide = w.astype(jnp.promote_types(w.dtype, jnp.float32))
    scale = jnp.maximum(jnp.abs(wide).mean(), _SMALLEST)
    codes = jnp.clip(jnp.round(wide / scale), -1, 1)  # (2)
    return codes.astype(w.dtype), scale.astype(w.dtype)


ternary_by_mean = stored_in(2, _ternary_by_mean)


@reverse_rule
def int8_by_example(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Round each example of `x` [batch, …], floating, to integers of eight bits (4).

    Returns:
        The integers q in the dtype of `x`, whose cotangent divided by the step is that of `x`, and
        the steps s [batch, 1, …], float32 at least, which have none.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    axes = tuple(range(1, x.ndim))
    largest = jnp.max(jnp.abs(wide), axis=axes, keepdims=True, initial=_SMALLEST)
    codes = jnp.clip(jnp.round(wide * (127 / largest)), -128, 127)  # (4)
    return codes.astype(x.dtype), largest / 127


def _int8_by_example_fwd(x):
    codes, step = int8_by_example(x)
    return (codes, step), step


def _int8_by_example_bwd(step, cotangents):
    g, _ = cotangents
    return ((g.astype(step.dtype) * (1 / step)).astype(g.dtype),)  # (5)


int8_by_example.defvjp(_int8_by_example_fwd, _int8_by_example_bwd)


def bitnet_conv(
    x: jax.Array, kernel: jax.Array, *, quantizer: ScaledQuantizer = ternary_by_mean, **window
) -> jax.Array:
    """Convolve eight-bit inputs with weights of one scale (1).

    Args:
        x: images, sequences or volumes [batch, *sizes, in], floating.
        kernel: real weights [*taps, in, out], floating.
        quantizer: `ternary_by_mean` (2), or `nnlab.ops.scaled.centred_signs_by_layer` (3).
        **window: strides, padding and kernel_dilation of `nnlab.ops.convolution.conv`, whose
            result and errors these are.
    """
    check_operands("bitnet_conv", x, kernel)
    dtype = jnp.promote_types(x.dtype, kernel.dtype)
    codes, step = int8_by_example(x.astype(dtype))
    y = scaled_conv(codes, kernel, product=signed_int8_conv, quantizer=quantizer, **window)
    step = lax.stop_gradient(step)
    return (y.astype(step.dtype) * step).astype(dtype)  # (1)
