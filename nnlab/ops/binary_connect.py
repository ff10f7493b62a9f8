r"""BinaryConnect: real inputs and one-bit weights, so that a term is an addition or a subtraction.

.. math:: y = x * b(w)                                                                     (1)

The weights b(w), deterministic or stochastic, and their rule are those of `nnlab.ops.binary`
((3), (5) and (4) there); the product's cotangents are those of the convolution by b(w).

Which weights a trained network uses depends on how it was trained (section 2.6 of the paper): after
deterministic training the signs; after stochastic training, whose noise averages out, the real
weights w themselves. The second network therefore stores and multiplies real numbers.

References:
    Courbariaux et al., BinaryConnect, NeurIPS 2015, https://arxiv.org/abs/1511.00363.
"""

import jax

from nnlab.ops.binary import binary_weights, stochastic_binary_weights
from nnlab.ops.convolution import conv
from nnlab.ops.products import signed_conv


def binary_connect_conv(x: jax.Array, kernel: jax.Array, **window) -> jax.Array:
    """Convolve by the signs of `kernel`.

    Args:
        x: images, sequences or volumes [batch, *sizes, in], floating.
        kernel: real weights [*taps, in, out], floating.
        **window: strides, padding and kernel_dilation of `nnlab.ops.convolution.conv`, whose
            result and errors these are.
    """
    return signed_conv(x, binary_weights(kernel), **window)


def stochastic_binary_connect_conv(
    x: jax.Array, kernel: jax.Array, *, key: jax.Array | None = None, **window
) -> jax.Array:
    """Convolve by random signs whose mean is the clipped `kernel`.

    The arguments are those of `binary_connect_conv`, and

        key: random key of the signs. Without one, as in evaluation, the weights are `kernel`
            itself, which `nnlab.optim.clip_latent_weights` keeps in [-1, 1].
    """
    if key is None:
        return conv(x, kernel, **window)
    return signed_conv(x, stochastic_binary_weights(key, kernel), **window)
