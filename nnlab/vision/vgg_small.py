"""VGG-small, the CIFAR network of the binary and adder literature.

128C3-128C3-MP2-256C3-256C3-MP2-512C3-512C3-MP2-FC: in every second layer the maximum is taken
before the normalisation. The classifier has a bias and no normalisation. With 10 classes there are
4,660,106 parameters, and 607.6 M multiply-adds for a 32×32 image.

References:
    Zhang et al., LQ-Nets, ECCV 2018, https://arxiv.org/abs/1807.10029, and its code.
    Chen et al., AdderNet, CVPR 2020, https://arxiv.org/abs/1912.13200, table 2.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jax import lax

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.layers.normalization import batch_norm
from nnlab.networks import Network
from nnlab.ops.pooling import max_pool


class VGGSmall(Network):
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
        for stage, features in enumerate((128, 256, 512)):
            layers = self.first if stage == 0 else self.arithmetic
            x = layers.conv(features, (3, 3), dtype=self.dtype)(x)
            x = self.arithmetic.activation(norm()(x))
            x = self.arithmetic.conv(features, (3, 3), dtype=self.dtype)(x)
            x = max_pool(x)
            x = self.arithmetic.activation(norm()(x))
        x = lax.collapse(x, 1)
        self.sow("intermediates", "features", x)
        x = self.classifier.dense(self.classes, use_bias=True, dtype=self.dtype)(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))
