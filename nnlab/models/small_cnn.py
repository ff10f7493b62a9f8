"""A convolutional network of four layers for first experiments, at home on 8×8 digits.

Two 3×3 convolutions, 2×2 maximum, one more 3×3 convolution, 2×2 maximum, and a classifier followed
by BatchNorm; every layer is normalised. For images of any size.
"""

import flax.linen as nn
import jax

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.layers.normalization import batch_norm
from nnlab.ops.pooling import max_pool


class SmallCNN(nn.Module):
    """[batch, height, width, channels] to logits [batch, classes].

    `arithmetic` serves all layers but the first convolution and the classifier, which are float
    unless `first` and `classifier` say otherwise.
    """

    classes: int = 10
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    widths: tuple[int, int, int] = (16, 32, 64)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        activation = self.arithmetic.activation
        x = activation(batch_norm(train)(self.first.conv(self.widths[0], (3, 3))(x)))
        for width in self.widths[1:]:
            x = activation(batch_norm(train)(self.arithmetic.conv(width, (3, 3))(x)))
            x = max_pool(x)
        x = x.reshape(len(x), -1)
        self.sow("intermediates", "features", x)
        return batch_norm(train)(self.classifier.dense(self.classes)(x))
