r"""Locally connected layers: the windows of a convolution, whose weights are not shared.

A unit at position p of a convolution sees the window of p, by the same weights as all others. Here
each position has weights of its own,

.. math:: y_{po} = \sum_k x_{p + k} w_{pko}                                            (1)

or, in another arithmetic, another sum of terms of x_{p + k} and w_{pko}. Between the two lies what
a convolution assumes: what is worth seeing in one place is worth seeing in all. A dense layer of as
many units does not even assume that a unit has a place. With n positions of k inputs each, N inputs
in all, and f filters there are

.. math:: N n f \text{ (dense)}, \quad n k f \text{ (local)}, \quad k f \text{ (shared)} \quad (2)

weights, for n f units in each case.

References:
    LeCun, Generalization and network design strategies, in Connectionism in perspective, 1989.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.networks import Network
from nnlab.ops.windows import Padding, pair, window_of


def windows(
    x: jax.Array,
    kernel_size: int | Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
) -> jax.Array:
    """Return the window of every position: [batch, out height, out width, kh * kw * in].

    The numbers of a window are in the order of a kernel [kh, kw, in].

    Args:
        x: images [batch, height, width, in].
        kernel_size, strides, padding: see `nnlab.ops.adder.adder_conv`.

    Raises:
        InputError: x is no images.
        ValueError: sizes do not fit.
    """
    if x.ndim != 4:
        raise InputError(f"x is {list(x.shape)}, expected images [batch, height, width, in].")
    taps = pair("kernel_size", kernel_size)
    (down, across), pads, _ = window_of(x.shape, taps, strides, padding, 1)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = x.shape[1] - taps[0] + 1, x.shape[2] - taps[1] + 1
    parts = [
        x[:, i : i + rows : down, j : j + columns : across]
        for i in range(taps[0])
        for j in range(taps[1])
    ]
    return jnp.concatenate(parts, axis=-1)


class LocalConv(Network):
    """Equation (1) in any arithmetic, without a bias.

    Maps images [batch, height, width, in] to [batch, out height, out width, features]. Weights are
    those of the arithmetic's dense layer with an axis of positions in front, [positions, kh * kw *
    in, features]; in floats the product is that of `flax.linen.ConvLocal`. What is in memory is
    each window once, and no array of terms.

    Attributes:
        features: units at each position.
        kernel_size, strides, padding: see `nnlab.ops.adder.adder_conv`.
        arithmetic: of the product.

    Raises:
        InputError: `features` is no positive integer, or `arithmetic` none.
        ValueError: sizes do not fit.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    arithmetic: Arithmetic = FLOAT

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        seen = windows(x, self.kernel_size, strides=self.strides, padding=self.padding)
        batch, height, width, inputs = seen.shape

        def at_position(module: nn.Module, x: jax.Array) -> jax.Array:
            return self.arithmetic.dense(self.features, name="dense", parent=module)(x)

        mapped = nn.vmap(
            at_position,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=1,
            out_axes=1,
        )
        y = mapped(self, seen.reshape(batch, height * width, inputs))
        return y.reshape(batch, height, width, self.features)
