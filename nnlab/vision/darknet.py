"""Darknet-19 and Darknet-53, and the convolution that all networks of darknet are made of.

That is a convolution without a bias, BatchNorm and a leaky rectifier of slope 0.1. Darknet-19
halves the image by 2×2 maxima, Darknet-53 by convolutions of stride 2, and has shortcuts around a
1×1 and a 3×3 convolution. A 1×1 convolution with a bias classifies. With 1,000 classes:

==========  ==========
network     parameters
==========  ==========
Darknet-19  20,842,376
Darknet-53  41,609,928
==========  ==========

Layers with weights are numbered in the order of darknet's files (`nnlab.vision.darknet_weights`).
Where an image's side is odd, a maximum takes the border's pixel alone, as darknet's do. Images are
RGB from 0 to 1.

References:
    Redmon and Farhadi, YOLO9000, CVPR 2017, https://arxiv.org/abs/1612.08242, table 6; YOLOv3,
    2018, https://arxiv.org/abs/1804.02767, table 1; darknet (darknet19.cfg and darknet53.cfg at
    f6afaab). 1e-5 is added to variances, as in darknet's code for GPUs; its code for CPUs adds
    1e-6 to their roots.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.layers.activations import leaky
from nnlab.layers.normalization import batch_norm
from nnlab.networks import Network
from nnlab.ops.pooling import max_pool


class DarknetConv(nn.Module):
    """Convolution, BatchNorm and leaky rectifier: [batch, h, w, in] to [batch, h/s, w/s, features].

    With `last` it is a convolution with a bias alone. The activation is that of `activates`.
    """

    features: int
    size: int
    strides: int
    arithmetic: Arithmetic
    activates: Arithmetic
    last: bool
    dtype: Dtype | None
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = self.arithmetic.conv(
            self.features,
            (self.size, self.size),
            strides=self.strides,
            padding=self.size // 2,
            use_bias=self.last,
            dtype=self.dtype,
            name="conv",
        )(x)
        if self.last:
            return x.astype(jnp.promote_types(x.dtype, jnp.float32))
        x = batch_norm(train, self.dtype, self.axis_name, name="bn")(x)
        return leaky(self.activates.activation, 0.1)(x)


class Layers:
    """The convolutions of a network in the order in which they are called, with their numbers.

    The network has the fields arithmetic, first, classifier, features, dtype and axis_name.
    `published` is what its `features` are in the published network: widths are in proportion.
    """

    def __init__(self, network: nn.Module, train: bool, published: int):
        self.network, self.train, self.published, self.number = network, train, published, 0

    def __call__(
        self, x: jax.Array, features: int, size: int, strides: int = 1, *, last: bool = False
    ) -> jax.Array:
        """Apply the next convolution; the `last` of a branch has `features` as they are."""
        self.number += 1
        network = self.network
        arithmetic = network.first if self.number == 1 else network.arithmetic
        return DarknetConv(
            features if last else self.width(features),
            size,
            strides,
            network.classifier if last else arithmetic,
            network.arithmetic,
            last,
            network.dtype,
            network.axis_name,
            name=f"conv{self.number}",
        )(x, self.train)

    def width(self, features: int) -> int:
        """Return a published width in proportion to `features` of the network."""
        return max(features * self.network.features // self.published, 1)


def darknet_max(x: jax.Array, strides: int = 2) -> jax.Array:
    """Return the maxima of 2×2 windows that begin at every `strides`-th pixel."""
    return max_pool(x, 2, strides, "SAME")


def darknet19_layers(layers: Layers, x: jax.Array) -> list[jax.Array]:
    """Apply the 18 convolutions before the classifier; return the features of the last two sizes.

    The former are those before the last maximum.
    """
    x = darknet_max(layers(x, 32, 3))
    x = darknet_max(layers(x, 64, 3))
    before = x
    for width, convolutions in ((128, 3), (256, 3), (512, 5), (1024, 5)):
        for number in range(convolutions):
            x = layers(x, width // 2, 1) if number % 2 else layers(x, width, 3)
        if width < 1024:
            before, x = x, darknet_max(x)
    return [before, x]


def darknet53_layers(layers: Layers, x: jax.Array, blocks: tuple[int, ...]) -> list[jax.Array]:
    """Apply the convolutions before the classifier, 52 by default; return each stage's features."""
    x, stages = layers(x, 32, 3), []
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        x = layers(x, width, 3, 2)
        for _ in range(count):
            x = x + layers(layers(x, width // 2, 1), width, 3)
        stages.append(x)
    return stages


class Darknet19(Network):
    """Map images [batch, height, width, channels] to logits [batch, classes].

    All layers use `arithmetic`, except the first convolution and the classifier, which use `first`
    and `classifier` (float by default). `features` is the width of the first convolution, to which
    all others are in proportion. `dtype` is the dtype of the computation, by default that of images
    and parameters together; parameters, running statistics and logits are always float32. With
    `axis_name`, BatchNorm takes the batches of all devices along that mapped axis as one.

    Intermediates: "features", the last before the classifier.
    """

    classes: int = 1000
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    features: int = 32
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        layers = Layers(self, train, 32)
        x = darknet19_layers(layers, x)[-1]
        self.sow("intermediates", "features", x)
        return layers(x, self.classes, 1, last=True).mean(axis=(1, 2))


class Darknet53(Network):
    """Map images [batch, height, width, channels] to logits [batch, classes].

    The fields are those of `Darknet19`, and `blocks`, the number of shortcuts of each stage. Here
    the mean over positions comes before the classifier.

    Intermediates: "stage1" and so on, the outputs of the stages.
    """

    classes: int = 1000
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    features: int = 32
    blocks: tuple[int, ...] = (1, 2, 8, 8, 4)
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        layers = Layers(self, train, 32)
        stages = darknet53_layers(layers, x, self.blocks)
        for number, features in enumerate(stages, start=1):
            self.sow("intermediates", f"stage{number}", features)
        x = stages[-1].mean(axis=(1, 2), keepdims=True)
        return layers(x, self.classes, 1, last=True)[:, 0, 0]
