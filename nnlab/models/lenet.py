"""LeNet-5 with batch normalisation.

Convolutions 6 and 16 of 5×5 without padding, each followed by BatchNorm, activation and 2×2
maximum; then 120, 84 and the classifier. C3 is connected in full. Every layer is normalised, the
classifier too. Made for 32×32 images (MNIST padded with zeros): with 10 classes, 61,942 parameters
and 416,520 multiply-adds or their adder terms.

References:
    LeCun et al., Gradient-based learning applied to document recognition, 1998.
    Chen et al., AdderNet, CVPR 2020, https://arxiv.org/abs/1912.13200, section 4.1, which makes
    every layer an adder: `LeNet5(arithmetic=ADDER, first=ADDER, classifier=ADDER)`.
"""

import flax.linen as nn
import jax

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.layers.normalization import batch_norm
from nnlab.ops.pooling import max_pool


class LeNet5(nn.Module):
    """[batch, 32, 32, channels] to logits [batch, classes].

    `arithmetic` serves all layers but the first convolution and the classifier, which are float
    unless `first` and `classifier` say otherwise.
    """

    classes: int = 10
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        activation = self.arithmetic.activation
        for features, layers in ((6, self.first), (16, self.arithmetic)):
            x = layers.conv(features, (5, 5), padding="VALID")(x)
            x = activation(batch_norm(train)(x))
            x = max_pool(x)
        x = x.reshape(len(x), -1)
        for features in (120, 84):
            x = self.arithmetic.dense(features)(x)
            x = activation(batch_norm(train)(x))
        self.sow("intermediates", "features", x)
        return batch_norm(train)(self.classifier.dense(self.classes)(x))
