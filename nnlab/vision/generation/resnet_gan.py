"""Residual generators and critics for 32×32 images: WGAN-GP and SN-GAN.

The generator's dense layer makes 4×4 pixels of 128 latents; three blocks each double them by
nearest neighbours; a normalised 3×3 convolution makes pixels in [-1, 1]. The critic has two blocks
that halve by averages of 2×2 and two that do not, and a linear layer of the mean over positions.
Convolutions and dense layers have biases. Parameters for colour images:

===================  =========  =========
network              features   parameters
===================  =========  =========
generator, WGAN-GP         128  1,204,483
generator, SN-GAN          256  4,276,739
critic, both               128  1,053,825
===================  =========  =========

SN-GAN's critic has `normalization="spectral"` and sums over positions, `pooling="sum"`.

References:
    Gulrajani et al., WGAN-GP, NeurIPS 2017, https://arxiv.org/abs/1704.00028, appendix C, and its
    code, https://github.com/igul222/improved_wgan_training (gan_cifar_resnet.py).
    Miyato et al., SN-GAN, ICLR 2018, https://arxiv.org/abs/1802.05957, table 4.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.layers.normalization import batch_norm
from nnlab.networks import Network
from nnlab.vision.generation.classes import projection, split_classes, with_class
from nnlab.vision.generation.dcgan import halvings
from nnlab.vision.generation.normalization import (
    Normalization,
    bounded,
    check_normalization,
    normalized,
)
from nnlab.vision.generation.upsampling import twice


class UpBlock(nn.Module):
    """Normalise, double, convolve, normalise, convolve; the shortcut doubles and convolves by 1×1.

    Maps [n, h, w, in] to [n, 2 h, 2 w, features].
    """

    features: int
    arithmetic: Arithmetic
    dtype: Dtype | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        def conv(x: jax.Array, size: int) -> jax.Array:
            options: Any = {"use_bias": True, "dtype": self.dtype}
            return self.arithmetic.conv(self.features, (size, size), **options)(x)

        activation = self.arithmetic.activation
        y = conv(twice(activation(batch_norm(train, self.dtype)(x))), 3)
        y = conv(activation(batch_norm(train, self.dtype)(y)), 3)
        return y + conv(twice(x), 1)


class DownBlock(nn.Module):
    """Two convolutions with activations before them, and a shortcut.

    Maps [n, h, w, in] to [n, h, w, features], or half the height and width where it `halves`.
    The block that is `first` sees images: it has no activation before it and its shortcut averages
    before the 1×1 convolution, in place of after. Without a change of shape the shortcut is x.
    """

    features: int
    arithmetic: Arithmetic
    normalization: Normalization
    dtype: Dtype | None
    halves: bool = False
    first: Arithmetic | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        kind = self.normalization

        def conv(x: jax.Array, size: int, layers: Arithmetic) -> jax.Array:
            options: Any = {"use_bias": True, "dtype": self.dtype}
            return bounded(layers.conv(self.features, (size, size), **options), kind, train)(x)

        def activated(x: jax.Array) -> jax.Array:
            return self.arithmetic.activation(normalized(x, kind, train, self.dtype))

        outer = self.first or self.arithmetic
        y = conv(x if self.first else activated(x), 3, outer)
        y = conv(activated(y), 3, self.arithmetic)
        if not self.halves:
            return x + y
        if self.first:
            return _halved(y) + conv(_halved(x), 1, outer)
        return _halved(y + conv(x, 1, outer))


def _halved(x: jax.Array) -> jax.Array:
    return nn.avg_pool(x, (2, 2), (2, 2))


class ResNetGenerator(Network):
    """Map latents [n, latents], or (latents, classes [n]), to images [n, size, size, channels].

    Blocks use `arithmetic`, the dense layer `first` and the last convolution `last` (float by
    default). `dtype` is that of the computation; images are float32 at least.

    Attributes:
        size: 8, 16, 32, …; pixels on a side.
        features: channels of every block.
        classes: number of classes, where images are asked for by class.

    Raises:
        InputError: `size` is none of these, or inputs are as of `split_classes`.
    """

    size: int = 32
    channels: int = 3
    features: int = 128
    classes: int | None = None
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    last: Arithmetic = FLOAT
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> jax.Array:
        latents, labels = split_classes("latents", inputs, self.classes)
        dense = self.first.dense(16 * self.features, use_bias=True, dtype=self.dtype)
        x = dense(with_class(latents, labels, self.classes)).reshape(-1, 4, 4, self.features)
        for _ in range(halvings(self.size)):
            x = UpBlock(self.features, self.arithmetic, self.dtype)(x, train)
        x = self.arithmetic.activation(batch_norm(train, self.dtype)(x))
        x = self.last.conv(self.channels, (3, 3), use_bias=True, dtype=self.dtype)(x)
        return jnp.tanh(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


class ResNetCritic(Network):
    """Map images [n, height, width, channels], or (images, classes [n]), to logits [n].

    Blocks use `arithmetic`; the first convolution and the first shortcut use `first`, the linear
    layer `last` (float by default). An arithmetic whose outputs need a normalisation should have
    `normalization="layer"`.

    Attributes:
        features: channels of every block.
        classes: number of classes, where images are judged by class.
        normalization: see `nnlab.vision.generation.normalization`.
        pooling: over positions before the last layer.

    Raises:
        InputError: a side cannot be halved twice, an option has another value than those above, or
            inputs are as of `split_classes`.
    """

    features: int = 128
    classes: int | None = None
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    last: Arithmetic = FLOAT
    normalization: Normalization = "none"
    pooling: Literal["mean", "sum"] = "mean"
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> jax.Array:
        check_normalization(self.normalization)
        if self.pooling not in ("mean", "sum"):
            raise InputError(f'pooling must be "mean" or "sum", not {self.pooling!r}.')
        x, labels = split_classes("images", inputs, self.classes)
        if x.shape[1] % 4 or x.shape[2] % 4:
            raise InputError(
                f"images are {x.shape[1]} by {x.shape[2]}, expected sides that 4 divides."
            )
        kind = self.normalization
        common = self.features, self.arithmetic, kind, self.dtype
        x = DownBlock(*common, halves=True, first=self.first)(x, train)
        for halves in (True, False, False):
            x = DownBlock(*common, halves=halves)(x, train)
        x = self.arithmetic.activation(normalized(x, kind, train, self.dtype))
        pooled = getattr(x, self.pooling)(axis=(1, 2))
        last = self.last.dense(1, use_bias=True, dtype=self.dtype)
        logits = bounded(last, kind, train)(pooled)[:, 0]
        logits += projection(x, labels, self.classes, kind, train)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
