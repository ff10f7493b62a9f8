r"""What a critic does with the outputs of its layers: normalise them, or bound their slopes.

==========  ========================================================================================
kind        after, or around, every layer between the first and the last
==========  ========================================================================================
"batch"     batch normalisation (DCGAN); examples then depend on each other
"layer"     layer normalisation, of each example by itself (WGAN-GP with normalisation)
"spectral"  weights divided by their spectral norm, in the first and last layer too (SN-GAN)
"none"      nothing (WGAN-GP)
==========  ========================================================================================

`SpectralNorm` makes a layer's slope at most about 1. A layer that multiplies is linear, and its
weights [kh·kw·in, out] are divided by their largest singular value, of one step of power iteration
an update. (For windows that overlap the layer's own norm may be larger, by at most the root of the
number of windows that a pixel is in.) An adder has no linear operator: its slopes are signs
whatever the weights are, so scaling these changes nothing. With K terms in an output and `out`
outputs for each of the n windows that an input is in, :math:`y_o = -\sum_k |x_k - w_{ko}|` satisfy

.. math::
    |y - y'|_\infty \le |x - x'|_1, \qquad
    |y - y'|_1 \le n\,\mathrm{out}\,|x - x'|_1, \qquad
    |y - y'|_2 \le \sqrt{K\,\mathrm{out}\,n}\,|x - x'|_2.                      (1)

The last is met by a dense adder whose inputs all lie above its weights. So an adder's outputs are
centred for each example, which is a projection and lengthens no slope, and divided by that root.
This is a true bound and a loose one: where signs are balanced the slope is near
:math:`\sqrt K + \sqrt{\mathrm{out}}`, so that through several layers next to nothing of the input
is left. An adder's critic learns with "batch" or "layer".

References:
    Miyato et al., Spectral Normalization for GANs, ICLR 2018, https://arxiv.org/abs/1802.05957.
    Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017,
    https://arxiv.org/abs/1704.00028, section 4, for layer normalisation.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax
from flax.typing import Dtype

from nnlab.errors import InputError
from nnlab.layers import AdderConv, AdderDense, Conv, ProductConv, ProductDense
from nnlab.layers.normalization import batch_norm
from nnlab.ops.windows import kernel_axes, per_axis

Normalization = Literal["batch", "layer", "spectral", "none"]


def adder_slope(taps: Sequence[int], strides: Sequence[int], inputs: int, features: int) -> float:
    """Return the bound (1) of an adder layer in the Euclidean norm.

    Args:
        taps, strides: of the window along each axis; empty for a dense layer.
        inputs, features: channels before and after.
    """
    windows = math.prod(-(-k // s) for k, s in zip(taps, strides, strict=True))
    return math.sqrt(math.prod(taps) * inputs * features * windows)


class SpectralNorm(nn.Module):
    """A layer whose slope is bounded, as described above.

    Attributes:
        layer: a float layer, or one of a product with weights called `kernel`, such as shifts, or
            an adder.

    Raises:
        InputError: the layer is of another kind.
    """

    layer: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        layer = self.layer
        if isinstance(layer, AdderConv | AdderDense):
            taps: Sequence[int] = ()
            strides: Sequence[int] = ()
            if isinstance(layer, AdderConv):
                taps = kernel_axes(layer.kernel_size)
                strides = per_axis("strides", layer.strides, len(taps))
            y = layer(x)
            centred = y - y.mean(axis=tuple(range(1, y.ndim)), keepdims=True)
            return centred / adder_slope(taps, strides, x.shape[-1], layer.features)
        known = type(layer) in (Conv, ProductConv, ProductDense, nn.Dense, nn.Embed)
        if not known or getattr(layer, "kernel_name", "kernel") != "kernel":
            raise InputError(
                f"{type(layer).__name__} has no spectral norm: its slope follows neither from its"
                " weights, as in float layers, nor from its size, as in adders; normalise by"
                ' "batch" or "layer".'
            )
        return nn.SpectralNorm(layer)(x, update_stats=train)


def check_normalization(kind: str) -> None:
    """Raise `InputError` unless the kind is one of the table."""
    if kind not in ("batch", "layer", "spectral", "none"):
        raise InputError(
            f'normalization must be "batch", "layer", "spectral" or "none", not {kind!r}.'
        )


def bounded(layer: nn.Module, kind: Normalization, train: bool) -> Callable[[jax.Array], jax.Array]:
    """Return the layer, with its slope bounded where the kind is "spectral"."""
    return functools.partial(SpectralNorm(layer), train=train) if kind == "spectral" else layer


def normalized(
    x: jax.Array, kind: Normalization, train: bool, dtype: Dtype | None = None
) -> jax.Array:
    """Return outputs of a layer, normalised by batch or by example where the kind says so."""
    if kind == "batch":
        return batch_norm(train, dtype)(x)
    if kind == "layer":
        axes = tuple(range(1, x.ndim))
        return nn.LayerNorm(reduction_axes=axes, use_fast_variance=False, dtype=dtype)(x)
    return x
