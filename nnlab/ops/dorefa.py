r"""DoReFa-Net: weights, activations and gradients of few bits each.

.. math:: y = f_W(w) * f_A(x)                                                              (1)

Weights and activations come from `nnlab.ops.estimators.dorefa_quantizer`; at 32 bits they stay as
they are. With k bits, the cotangent g of the part of y that belongs to one image becomes

.. math::
    f_G(g) = 2 M \left[ r\!\left( \frac{g}{2 M} + \frac{1}{2} + \frac{\sigma}{n} \right)
             - \frac{1}{2} \right], \qquad M = \max |g|                                    (2)

with n = 2^k - 1, r(u) = round(n clip(u, 0, 1)) / n, the maximum over everything that the image has
in this layer, and sigma uniform on [-1/2, 1/2]: it rounds up or down at random, so that the mean of
(2) is g. The rule is not the gradient of a potential; its mean is, that of (1).

=======================  ========================================================================
bits of                  a term
=======================  ========================================================================
weights 1                addition (`signed_conv`), the scale mean(abs(w)) follows; see
                         `nnlab.ops.scaled`
both 8 or fewer          product of 8 bits (`int8_conv`); at 8 bits weights are odd multiples of
                         1/255, and numbers from 0 to 255 with an offset for hardware
one of both 32           multiplication and addition
=======================  ========================================================================

References:
    Zhou et al., DoReFa-Net, 2016, https://arxiv.org/abs/1606.06160, eqs. 5 to 12.
"""

import jax
import jax.numpy as jnp

from nnlab.kernels.derivatives import reverse_rule
from nnlab.ops.convolution import conv
from nnlab.ops.estimators import dorefa_quantizer
from nnlab.ops.keys import check_key
from nnlab.ops.products import int8_conv, signed_conv
from nnlab.ops.scaled import scaled_conv, signs_by_layer


def dorefa_conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    weight_bits: int = 1,
    activation_bits: int = 2,
    gradient_bits: int = 32,
    key: jax.Array | None = None,
    **window,
) -> jax.Array:
    """Convolve few-bit weights and activations (1) and round the cotangent (2).

    Args:
        x: images, sequences or volumes [batch, *sizes, in], floating.
        kernel: real weights [*taps, in, out], floating.
        weight_bits, activation_bits, gradient_bits: from 1 to 8, or 32 for no rounding.
        key: random key of (2). Without one, as in evaluation, cotangents stay as they are.
        **window: strides, padding and kernel_dilation of `nnlab.ops.convolution.conv`, whose
            result and errors these are.

    Raises:
        ValueError: also for other numbers of bits.
    """
    check_bits(weight_bits, activation_bits, gradient_bits)
    if key is not None:
        check_key(key)
    if activation_bits < 32:
        x = dorefa_quantizer(x, activation_bits)
    if weight_bits == 1:
        y = scaled_conv(x, kernel, product=signed_conv, quantizer=signs_by_layer, **window)
    else:
        if weight_bits < 32:
            kernel = dorefa_quantizer(kernel, weight_bits, "weights")
        product = int8_conv if max(weight_bits, activation_bits) < 32 else conv
        y = product(x, kernel, **window)
    if gradient_bits < 32 and key is not None:
        y = quantize_gradient(key, y, gradient_bits)
    return y


def check_bits(weight_bits: int, activation_bits: int, gradient_bits: int) -> None:
    """Raise a ValueError unless each number of bits is from 1 to 8, or 32."""
    names = ("weight_bits", "activation_bits", "gradient_bits")
    for name, bits in zip(names, (weight_bits, activation_bits, gradient_bits), strict=True):
        if bits not in (*range(1, 9), 32):
            raise ValueError(f"{name} must be an integer from 1 to 8, or 32, not {bits!r}.")


def quantize_gradient(key: jax.Array, y: jax.Array, bits: int) -> jax.Array:
    """Return `y` [batch, ...], floating; round its cotangent at random (2) to `bits` bits.

    The cotangent of an image that has nothing but zeros stays zero.
    """
    check_key(key)

    @reverse_rule
    def gradient_quantizer(key, y):
        return y

    def bwd(key, g):
        return None, _stochastic_rounding(key, g, bits)

    gradient_quantizer.defvjp(lambda key, y: (gradient_quantizer(key, y), key), bwd)
    return gradient_quantizer(key, y)


def _stochastic_rounding(key, g, bits):
    wide = g.astype(jnp.promote_types(g.dtype, jnp.float32))
    n = 2**bits - 1
    largest = jnp.max(jnp.abs(wide), axis=tuple(range(1, g.ndim)), keepdims=True)
    sigma = jax.random.uniform(key, g.shape, wide.dtype, -0.5, 0.5)
    u = wide / (2 * jnp.where(largest > 0, largest, 1)) + 0.5 + sigma / n
    rounded = 2 * largest * (jnp.round(n * jnp.clip(u, 0, 1)) / n - 0.5)  # (2)
    return rounded.astype(g.dtype)
