"""LeNet-5 with batch normalisation.

Convolutions of 5×5 without padding to 6 and 16 channels, each followed by BatchNorm, activation and
2×2 maximum; then dense layers of 120, 84 and `classes`. C3 sees all maps. Every layer is
normalised, the classifier too. For 32×32 images (MNIST padded with zeros); with 10 classes, 61,942
parameters and 416,520 multiply-adds, or as many adder terms.

References:
    LeCun et al., Gradient-based learning applied to document recognition, 1998.
    Chen et al., AdderNet, CVPR 2020, https://arxiv.org/abs/1912.13200, section 4.1, which makes
    every layer an adder: `LeNet5(arithmetic=ADDER, first=ADDER, classifier=ADDER)`.
"""

import functools

import flax.linen as nn
import jax
from flax.typing import Dtype
from jax import lax

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.layers.normalization import batch_norm
from nnlab.networks import Network
from nnlab.ops.pooling import max_pool


class LeNet5(Network):
    """Map images [batch, 32, 32, channels] to logits [batch, classes].

    All layers use `arithmetic`, except the first convolution and the classifier, which use `first`
    and `classifier` (float by default). `dtype` is the dtype of the computation, by default that of
    images and parameters together; parameters, running statistics and logits are always float32.
    With `axis_name`, BatchNorm takes the batches of all devices along that mapped axis as one; by
    default each device normalises its own.
    """

    classes: int = 10
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        norm = functools.partial(batch_norm, train, dtype=self.dtype, axis_name=self.axis_name)
        activation = self.arithmetic.activation
        for features, layers in ((6, self.first), (16, self.arithmetic)):
            x = layers.conv(features, (5, 5), padding="VALID", dtype=self.dtype)(x)
            x = activation(norm()(x))
            x = max_pool(x)
        x = lax.collapse(x, 1)
        for features in (120, 84):
            x = self.arithmetic.dense(features, dtype=self.dtype)(x)
            x = activation(norm()(x))
        self.sow("intermediates", "features", x)
        x = self.classifier.dense(self.classes, dtype=self.dtype)(x)
        return norm(dtype=None)(x)  # of float32 statistics, hence float32
