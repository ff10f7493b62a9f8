"""A convolutional network of four layers for first experiments, at home on 8×8 digits.

Two 3×3 convolutions, 2×2 maximum, one more 3×3 convolution, 2×2 maximum, and a classifier followed
by BatchNorm; every layer is normalised. For images of any size.
"""

import functools

import flax.linen as nn
import jax
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.layers.normalization import batch_norm
from nnlab.ops.pooling import max_pool


class SmallCNN(nn.Module):
    """[batch, height, width, channels] to logits [batch, classes].

    `arithmetic` serves all layers but the first convolution and the classifier, which are float
    unless `first` and `classifier` say otherwise. `dtype` is that of the computation, by default
    that of images and parameters together; parameters, running statistics and logits are float32
    in any. `axis_name` is that of a mapped axis along which BatchNorm takes the batch of all
    devices as one; by default each has its own.
    """

    classes: int = 10
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    widths: tuple[int, int, int] = (16, 32, 64)
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        norm = functools.partial(batch_norm, train, dtype=self.dtype, axis_name=self.axis_name)
        activation = self.arithmetic.activation
        x = self.first.conv(self.widths[0], (3, 3), dtype=self.dtype)(x)
        x = activation(norm()(x))
        for width in self.widths[1:]:
            x = self.arithmetic.conv(width, (3, 3), dtype=self.dtype)(x)
            x = activation(norm()(x))
            x = max_pool(x)
        x = x.reshape(x.shape[0], -1)
        self.sow("intermediates", "features", x)
        x = self.classifier.dense(self.classes, dtype=self.dtype)(x)
        return norm(dtype=None)(x)  # of float32 statistics, hence float32
