r"""DoReFa-Net: weights, activations and gradients of few bits each.

.. math:: y = f_W(w) * f_A(x)                                                              (1)

Weights and activations are those of `nnlab.ops.estimators.dorefa_quantizer`, of 32 bits the numbers
themselves. With k bits, one cotangent g of y that an image has becomes

.. math::
    f_G(g) = 2 M \left[ r\!\left( \frac{g}{2 M} + \frac{1}{2} + \frac{\sigma}{n} \right)
             - \frac{1}{2} \right], \qquad M = \max |g|                                    (2)

with n = 2^k - 1, r(u) = round(n clip(u, 0, 1)) / n, the maximum over all that the image has in this
layer, and sigma even on [-1/2, 1/2]: rounding up or down at random, so that the mean of (2) is g.
It is no gradient of a potential, but has the mean of one, that of (1).

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

from nnlab.ops.convolution import conv
from nnlab.ops.estimators import dorefa_quantizer
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
    **options,
) -> jax.Array:
    """Convolution (1), its cotangent rounded by (2).

    Args:
        x: images [batch, height, width, in], floating.
        kernel: real weights [kh, kw, in, out], floating.
        weight_bits, activation_bits, gradient_bits: from 1 to 8, or 32 for no rounding.
        key: for (2). Without one, as in evaluation, cotangents stay as they are.
        **options: strides, padding and kernel_dilation of `nnlab.ops.convolution.conv`, whose
            result and errors these are.

    Raises:
        ValueError: also of the bits.
    """
    check_bits(weight_bits, activation_bits, gradient_bits)
    if activation_bits < 32:
        x = dorefa_quantizer(x, activation_bits)
    if weight_bits == 1:
        y = scaled_conv(x, kernel, product=signed_conv, quantizer=signs_by_layer, **options)
    else:
        if weight_bits < 32:
            kernel = dorefa_quantizer(kernel, weight_bits, "weights")
        product = int8_conv if max(weight_bits, activation_bits) < 32 else conv
        y = product(x, kernel, **options)
    if gradient_bits < 32 and key is not None:
        y = quantize_gradient(key, y, gradient_bits)
    return y


def check_bits(weight_bits: int, activation_bits: int, gradient_bits: int) -> None:
    """Raises a ValueError unless each is from 1 to 8, or 32."""
    names = ("weight_bits", "activation_bits", "gradient_bits")
    for name, bits in zip(names, (weight_bits, activation_bits, gradient_bits), strict=True):
        if bits not in (*range(1, 9), 32):
            raise ValueError(f"{name} must be an integer from 1 to 8, or 32, not {bits!r}.")


def quantize_gradient(key: jax.Array, y: jax.Array, bits: int) -> jax.Array:
    """`y` [batch, ...], floating, whose cotangent is rounded at random by (2) to `bits` bits.

    Where an image has nothing but zeros, they stay zeros.
    """

    @jax.custom_vjp
    def identity(key, y):
        return y

    def bwd(key, g):
        return None, _stochastic_rounding(key, g, bits)

    identity.defvjp(lambda key, y: (y, key), bwd)
    return identity(key, y)


def _stochastic_rounding(key, g, bits):
    wide = g.astype(jnp.promote_types(g.dtype, jnp.float32))
    n = 2**bits - 1
    largest = jnp.max(jnp.abs(wide), axis=tuple(range(1, g.ndim)), keepdims=True)
    sigma = jax.random.uniform(key, g.shape, wide.dtype, -0.5, 0.5)
    u = wide / (2 * jnp.where(largest > 0, largest, 1)) + 0.5 + sigma / n
    rounded = 2 * largest * (jnp.round(n * jnp.clip(u, 0, 1)) / n - 0.5)  # (2)
    return rounded.astype(g.dtype)
