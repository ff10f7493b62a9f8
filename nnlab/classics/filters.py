r"""Convolution by hand: sizes, the gradient, and kernels that someone thought of.

A true convolution goes through the kernel backwards, a cross-correlation does not
(`nnlab.ops.convolution`, equations 1 and 2 there). Of n inputs and k taps, there are as many
outputs as places where the two

.. math:: n + k - 1 \text{ (touch: full)}, \quad n \text{ (same)}, \quad n - k + 1
    \text{ (overlap wholly: valid)}                                                     (1)

Back from the outputs of the cross-correlation :math:`y_p = \sum_k x_{p + k} w_k` goes

.. math:: \frac{\partial E}{\partial x_q} = \sum_k g_{q - k} w_k, \quad
    g = \frac{\partial E}{\partial y}                                                   (2)

a true convolution, the wide one if the forward pass was the valid one: an input near the border
has been seen by fewer outputs, but by more than none.

Before kernels were learnt they were written by hand. A Gaussian smooths,

.. math:: w_{ij} \propto e^{-(i^2 + j^2) / 2 \sigma^2}, \quad \sum w = 1               (3)

Sobel's kernels are a difference across an edge times a smoothing along it, and Laplace's is the
sum of both second differences. What an adder makes of them is another matter: its response is the
greater the more a window *looks like* the kernel. For pixels x in [0, 1] and weights outside of
(0, 1),

.. math:: -|x - w| = s x - s w, \quad s = 1 \text{ if } w \ge 1, \; -1 \text{ if } w \le 0   (4)

so that an adder with a kernel of large numbers is a product with the kernel of their signs, in
which a weight of 0 counts as -1: brightness shows through all of them. The picture of an edge, with
pixels w of 0, 1/2 and 1, less that of the same edge inverted is rid of it:

.. math:: -\sum |x - w| + \sum |x - (1 - w)| = \sum (2 w - 1)(2 x - 1)                 (5)

is a product with a kernel of -1, 0 and 1. With columns of 0, 1/2 and 1 that is Prewitt's kernel.

References:
    Goodfellow et al., Deep Learning, MIT Press 2016, section 9.5 for (1) and (2). Gonzalez & Woods,
    Digital Image Processing, 4th edition, 2018, chapter 3 for (3) and the kernels.
"""

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.errors import InputError, check_count
from nnlab.ops.convolution import true_conv

SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32)
"""Brighter to the right, as a cross-correlation; transposed, brighter below."""
LAPLACE = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float32)
"""Brighter around than in the middle."""


def gaussian(size: int, sigma: float) -> np.ndarray:
    """Return the kernel (3), float32 [size, size].

    Raises:
        InputError: the size is no odd positive integer, or sigma not positive and finite.
    """
    check_count("size", size)
    if size % 2 == 0 or not (np.isfinite(sigma) and sigma > 0):
        raise InputError(
            f"a Gaussian has an odd size and a positive sigma, not {size} and {sigma}."
        )
    line = np.exp(-0.5 * ((np.arange(size) - size // 2) / sigma) ** 2)
    line /= line.sum()
    return np.outer(line, line).astype(np.float32)


def input_gradient(g: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return the gradient (2) by the inputs of `conv(x, kernel, padding="VALID")`.

    Args:
        g: gradient by the outputs [batch, *sizes, out], floating.
        kernel: [*taps, in, out].

    Returns:
        [batch, *sizes + taps - 1, in].

    Raises:
        ValueError, TypeError: as for `nnlab.ops.convolution.conv`.
    """
    return true_conv(g, jnp.swapaxes(kernel, -1, -2), padding="FULL")
