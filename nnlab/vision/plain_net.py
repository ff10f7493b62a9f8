"""Plain networks of any depth and width: 3×3 convolutions one behind the other.

A convolution to `widths[0]` channels, three stages of `layers` convolutions with `widths` channels,
the first of the second and of the third stage at stride 2, the mean over positions and a classifier
with a bias; each convolution is followed by BatchNorm and activation. With `layers` = 2 n and the
widths 16, 32 and 64 these are the plain networks of 6 n + 2 layers that He et al. hold against
their ResNets. With `shortcuts` every convolution whose output has its input's shape has the input
added to its normalised output: the same parameters, with another way for the gradient.

References:
    He et al., Deep Residual Learning, CVPR 2016, https://arxiv.org/abs/1512.03385, section 4.2.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.layers.normalization import batch_norm


class PlainNet(nn.Module):
    """[batch, height, width, channels] to logits [batch, classes], of 3 `layers` + 2 layers.

    `arithmetic` serves all layers but the first convolution and the classifier, which are float
    unless `first` and `classifier` say otherwise. `dtype` is that of the computation, by default
    that of images and parameters together; parameters, running statistics and logits are float32
    in any. `axis_name` is that of a mapped axis along which BatchNorm takes the batch of all
    devices as one; by default each has its own. Intermediates: "stage1" to "stage3", "features".
    """

    layers: int
    widths: tuple[int, int, int] = (16, 32, 64)
    classes: int = 10
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    shortcuts: bool = False
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        if self.layers < 1:
            raise ValueError(f"layers must be at least 1, not {self.layers}.")
        norm = functools.partial(batch_norm, train, dtype=self.dtype, axis_name=self.axis_name)
        activation = self.arithmetic.activation
        x = self.first.conv(self.widths[0], (3, 3), padding=1, dtype=self.dtype, name="conv")(x)
        x = activation(norm(name="bn")(x))
        for stage, features in enumerate(self.widths, 1):
            for layer in range(self.layers):
                strides, place = 2 if stage > 1 and layer == 0 else 1, f"stage{stage}_{layer}"
                y = self.arithmetic.conv(
                    features,
                    (3, 3),
                    strides=strides,
                    padding=1,
                    dtype=self.dtype,
                    name=f"{place}_conv",
                )(x)
                y = norm(name=f"{place}_bn")(y)
                x = activation(x + y if self.shortcuts and x.shape == y.shape else y)
            self.sow("intermediates", f"stage{stage}", x)
        x = x.mean(axis=(1, 2))
        self.sow("intermediates", "features", x)
        x = self.classifier.dense(self.classes, use_bias=True, dtype=self.dtype, name="fc")(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))
