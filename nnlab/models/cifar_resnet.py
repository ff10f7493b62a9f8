"""ResNets for 32×32 images, as AdderNet's code builds them.

A 3×3 convolution to 16 channels, three stages of (depth - 2) / 6 basic blocks with 16, 32 and 64
channels, the mean over positions, and a classifier followed by BatchNorm. Where the shape changes,
the shortcut is a 1×1 convolution with BatchNorm, in the same arithmetic as the block. Parameters
with 10 and 100 classes: depth 20 272,484 and 278,424; depth 32 466,916 and 472,856.

References:
    He et al., Deep Residual Learning, CVPR 2016, https://arxiv.org/abs/1512.03385, section 4.2.
    Chen et al., AdderNet, CVPR 2020, https://arxiv.org/abs/1912.13200, and its code (resnet20.py).
"""

import functools

import flax.linen as nn
import jax

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.layers.normalization import batch_norm


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut: [batch, h, w, in] to [batch, h/s, w/s, features]."""

    features: int
    strides: int
    arithmetic: Arithmetic

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv, activation = self.arithmetic.conv, self.arithmetic.activation
        sides = ((1, 1), (1, 1))
        y = conv(self.features, (3, 3), strides=self.strides, padding=sides)(x)
        y = activation(batch_norm(train)(y))
        y = conv(self.features, (3, 3), padding=sides)(y)
        y = batch_norm(train)(y)
        if x.shape != y.shape:
            x = conv(self.features, (1, 1), strides=self.strides, padding="VALID")(x)
            x = batch_norm(train)(x)
        return activation(x + y)


class CifarResNet(nn.Module):
    """[batch, height, width, channels] to logits [batch, classes].

    `arithmetic` serves all layers but the first convolution and the classifier, which are float
    unless `first` and `classifier` say otherwise. `depth` is 6 n + 2.
    """

    depth: int
    classes: int = 10
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        blocks, remainder = divmod(self.depth - 2, 6)
        if remainder or blocks < 1:
            raise ValueError(f"depth must be 6 n + 2 with n at least 1, not {self.depth}.")
        x = self.first.conv(16, (3, 3))(x)
        x = self.arithmetic.activation(batch_norm(train)(x))
        for stage, features in enumerate((16, 32, 64)):
            for block in range(blocks):
                strides = 2 if stage > 0 and block == 0 else 1
                x = BasicBlock(features, strides, self.arithmetic)(x, train)
        x = x.mean(axis=(1, 2))
        self.sow("intermediates", "features", x)
        return batch_norm(train)(self.classifier.dense(self.classes)(x))


resnet20 = functools.partial(CifarResNet, 20)
resnet32 = functools.partial(CifarResNet, 32)
