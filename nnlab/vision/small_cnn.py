"""A convolutional network of four layers for first experiments, made for 8×8 digits.

Two 3×3 convolutions, 2×2 maximum, one more 3×3 convolution, 2×2 maximum, and a classifier followed
by BatchNorm; every layer is normalised. It takes images of any size; for 8×8 digits it has 25,988
parameters.
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


class SmallCNN(Network):
    """Map images [batch, height, width, channels] to logits [batch, classes].

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
        x = lax.collapse(x, 1)
        self.sow("intermediates", "features", x)
        x = self.classifier.dense(self.classes, dtype=self.dtype)(x)
        return norm(dtype=None)(x)  # of float32 statistics, hence float32
