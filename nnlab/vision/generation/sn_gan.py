"""SN-GAN's standard networks for 32×32 images: a plain generator, and a critic of bounded slope.

The generator's dense layer makes 4×4 pixels of 512 channels from 128 latents, three doublings with
BatchNorm and ReLU have 256, 128 and 64, and a 3×3 convolution makes pixels in [-1, 1]. The critic
has 3×3 windows of stride 1 and 4×4 windows of stride 2 in turn, with 64, 64, 128, 128, 256, 256 and
512 channels, leaky rectifiers of slope 0.1, and a linear layer. Every layer has a bias. For colour
images 3,812,355 and 2,935,873 parameters.

References:
    Miyato et al., Spectral Normalization for GANs, ICLR 2018, https://arxiv.org/abs/1802.05957,
    table 3.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jax import lax

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.layers.activations import leaky
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
from nnlab.vision.generation.upsampling import Upsample, Upsampling


class SNGANGenerator(Network):
    """Map latents [n, latents], or (latents, classes [n]), to images [n, size, size, channels].

    All layers use `arithmetic`, except the dense layer `first` and the last convolution `last`
    (float by default). `dtype` is that of the computation; images are float32 at least.

    Attributes:
        size: 8, 16, 32, …; pixels on a side.
        features: channels of the last doubling.
        classes: number of classes, where images are asked for by class.
        upsampling: see `nnlab.vision.generation.upsampling`.

    Raises:
        InputError: `size` is none of these, or inputs are as of `split_classes`.
    """

    size: int = 32
    channels: int = 3
    features: int = 64
    classes: int | None = None
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    last: Arithmetic = FLOAT
    upsampling: Upsampling = "subpixel"
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> jax.Array:
        latents, labels = split_classes("latents", inputs, self.classes)
        doublings = halvings(self.size)
        width = self.features * 2**doublings
        dense = self.first.dense(16 * width, use_bias=True, dtype=self.dtype)
        x = dense(with_class(latents, labels, self.classes)).reshape(-1, 4, 4, width)
        for _ in range(doublings):
            width //= 2
            options: Any = {"use_bias": True, "dtype": self.dtype}
            x = Upsample(self.arithmetic.conv, width, self.upsampling, **options)(x)
            x = self.arithmetic.activation(batch_norm(train, self.dtype)(x))
        x = self.last.conv(self.channels, (3, 3), use_bias=True, dtype=self.dtype)(x)
        return jnp.tanh(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


class SNGANCritic(Network):
    """Map images [n, size, size, channels], or (images, classes [n]), to logits [n].

    All layers use `arithmetic`, except `first` and the dense layer `last` (float by default). An
    arithmetic whose outputs need a normalisation should have `normalization="layer"` or "batch".

    Attributes:
        features: channels after the first layer.
        classes: number of classes, where images are judged by class.
        normalization: see `nnlab.vision.generation.normalization`.

    Raises:
        InputError: the images cannot be halved down to 4×4, the normalisation is none, or inputs
            are as of `split_classes`.
    """

    features: int = 64
    classes: int | None = None
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    last: Arithmetic = FLOAT
    normalization: Normalization = "spectral"
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> jax.Array:
        check_normalization(self.normalization)
        x, labels = split_classes("images", inputs, self.classes)
        kind, width = self.normalization, self.features
        windows = [(3, 1), (4, 2)] * halvings(x.shape[1]) + [(3, 1)]
        for number, (size, strides) in enumerate(windows):
            layers = self.arithmetic if number else self.first
            options: Any = {"use_bias": True, "dtype": self.dtype}
            layer = layers.conv(width, (size, size), strides=strides, padding=1, **options)
            x = bounded(layer, kind, train)(x)
            if number:
                x = normalized(x, kind, train, self.dtype)
            x = leaky(layers.activation, 0.1)(x)
            width *= 1 + number % 2
        last = self.last.dense(1, use_bias=True, dtype=self.dtype)
        logits = bounded(last, kind, train)(lax.collapse(x, 1))[:, 0]
        logits += projection(x, labels, self.classes, kind, train)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
