"""DCGAN: an image grows from 4×4 by doubling, and its critic halves it down to 4×4 again.

The generator's dense layer makes 4×4 pixels of latents; each doubling has half the channels of the
one before, BatchNorm and activation; the last makes pixels in [-1, 1] by a hyperbolic tangent. The
critic mirrors it with 4×4 windows of stride 2, leaky rectifiers of slope 0.2 and no normalisation
after the first layer. No convolution has a bias. With 64 features and 100 latents:

==========  =========  =========
images      generator  critic
==========  =========  =========
64×64×3     3,576,704  2,765,568
32×32×3     1,068,928    663,296
32×32×1     1,066,880    661,248
==========  =========  =========

References:
    Radford et al., DCGAN, ICLR 2016, https://arxiv.org/abs/1511.06434; layers and the start of
    weights as in PyTorch's example, https://github.com/pytorch/examples/tree/main/dcgan.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jax import lax

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.layers.activations import leaky
from nnlab.layers.normalization import batch_norm
from nnlab.networks import Network
from nnlab.vision.generation.classes import projection, split_classes, with_class
from nnlab.vision.generation.normalization import (
    Normalization,
    bounded,
    check_normalization,
    normalized,
)
from nnlab.vision.generation.upsampling import Upsample, Upsampling


class DCGANGenerator(Network):
    """Map latents [n, latents], or (latents, classes [n]), to images [n, size, size, channels].

    All layers use `arithmetic`, except the dense layer `first` and `last`, which makes the pixels
    (float by default). `dtype` is that of the computation; images are float32 at least.

    Attributes:
        size: 8, 16, 32, 64, …; pixels on a side.
        features: channels before the last layer.
        classes: number of classes, where images are asked for by class.
        upsampling: see `nnlab.vision.generation.upsampling`.

    Raises:
        InputError: `size` is none of these, or inputs are as of `split_classes`.
    """

    size: int = 64
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
        doublings = halvings(self.size)
        latents, labels = split_classes("latents", inputs, self.classes)
        width = self.features * 2 ** (doublings - 1)
        x = self.first.dense(16 * width, dtype=self.dtype)(
            with_class(latents, labels, self.classes)
        )
        x = x.reshape(-1, 4, 4, width)
        for _ in range(doublings - 1):
            x = self.arithmetic.activation(batch_norm(train, self.dtype)(x))
            width //= 2
            x = Upsample(self.arithmetic.conv, width, self.upsampling, dtype=self.dtype)(x)
        x = self.arithmetic.activation(batch_norm(train, self.dtype)(x))
        x = Upsample(self.last.conv, self.channels, self.upsampling, dtype=self.dtype)(x)
        return jnp.tanh(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


class DCGANCritic(Network):
    """Map images [n, size, size, channels], or (images, classes [n]), to logits [n].

    All layers use `arithmetic`, except `first` and the dense layer `last` (float by default). The
    size is that of the images: 8, 16, 32, 64, ….

    Attributes:
        features: channels after the first layer.
        classes: number of classes, where images are judged by class.
        normalization: see `nnlab.vision.generation.normalization`.

    Raises:
        InputError: the images have another size, the normalisation is none, or inputs are as of
            `split_classes`.
    """

    features: int = 64
    classes: int | None = None
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    last: Arithmetic = FLOAT
    normalization: Normalization = "batch"
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> jax.Array:
        check_normalization(self.normalization)
        x, labels = split_classes("images", inputs, self.classes)
        kind, width = self.normalization, self.features
        for number in range(halvings(x.shape[1])):
            layers = self.arithmetic if number else self.first
            layer = layers.conv(width, (4, 4), strides=2, padding=1, dtype=self.dtype)
            x = bounded(layer, kind, train)(x)
            if number:
                x = normalized(x, kind, train, self.dtype)
            x = leaky(layers.activation, 0.2)(x)
            width *= 2
        last = self.last.dense(1, dtype=self.dtype)
        logits = bounded(last, kind, train)(lax.collapse(x, 1))[:, 0]
        logits += projection(x, labels, self.classes, kind, train)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def halvings(size: int) -> int:
    """Return how often a side can be halved down to 4 pixels.

    Raises:
        InputError: it is not 4 times a power of two, or not larger than 4.
    """
    times = int(math.log2(max(size, 1) / 4)) if size >= 8 else 0
    if times < 1 or 4 * 2**times != size:
        raise InputError(
            f"images of {size} pixels a side cannot be halved down to 4; expected 8, 16, 32, 64, …:"
            " nnlab.vision.pad_to and Resize make others so."
        )
    return times


def published_start(key: jax.Array, params: Any) -> Any:
    """Return parameters with float kernels from N(0, 0.02²) and scales from N(1, 0.02²).

    Weights of another name, such as those of adders, stay as their layers draw them.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)

    def drawn(key: jax.Array, path: Any, leaf: jax.Array) -> jax.Array:
        name = getattr(path[-1], "key", "")
        if name not in ("kernel", "scale"):
            return leaf
        return 0.02 * jax.random.normal(key, leaf.shape, leaf.dtype) + (name == "scale")

    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(tree, [drawn(k, *each) for k, each in zip(keys, leaves, strict=True)])
