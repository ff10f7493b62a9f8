"""Plain networks of any depth and width: a chain of 3×3 convolutions.

A convolution to `widths[0]` channels, three stages of `layers` convolutions with `widths` channels,
where the second and third stage begin with stride 2, the mean over positions and a classifier with
a bias; each convolution is followed by BatchNorm and activation. With `layers` = 2 n and widths 16,
32 and 64 these are the plain networks of 6 n + 2 layers that He et al. compare with their ResNets:
269,722 parameters at 20 layers, as with option A. `shortcuts` add the input of every convolution to
its normalised output where their shapes are the same: another way for the gradient, without further
parameters.

References:
    He et al., Deep Residual Learning, CVPR 2016, https://arxiv.org/abs/1512.03385, section 4.2.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.layers.normalization import batch_norm
from nnlab.networks import Network


class PlainNet(Network):
    """Map images [batch, height, width, channels] to logits [batch, classes].

    All layers use `arithmetic`, except the first convolution and the classifier, which use `first`
    and `classifier` (float by default). `dtype` is the dtype of the computation, by default that of
    images and parameters together; parameters, running statistics and logits are always float32.
    With `axis_name`, BatchNorm takes the batches of all devices along that mapped axis as one; by
    default each device normalises its own.

    Intermediates: "stage1" to "stage3", the outputs of the stages, and "features", the mean over
    positions.

    Raises:
        InputError: `layers` is below 1.
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
            raise InputError(f"layers must be at least 1, not {self.layers}.")
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
