"""SegNet: an encoder that remembers where its maxima were, and a decoder that puts them back.

Each 2×2 maximum keeps its index; the decoder writes values back to these places, with zeros
elsewhere, and convolves. Windows at the border may be cut off (ceil mode), so that 360 rows become
180, 90, 45, 23 and 12, and the decoder restores exactly these sizes.

- `SegNet`: the 13 convolutions of VGG-16 each way, each with BatchNorm and ReLU but for the last.
  29,449,355 parameters with 11 classes, 106.7 billion multiply-adds at 360×480.
- `SegNetBasic`: local response normalisation, then four 7×7 convolutions of 64 channels each way;
  the decoder has BatchNorm and no ReLU. 1,416,587 parameters with 11 classes.

References:
    Badrinarayanan et al., SegNet, TPAMI 2017, https://arxiv.org/abs/1511.00561; its models
    (SegNet-Tutorial).
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.layers.normalization import batch_norm
from nnlab.networks import Network
from nnlab.ops.pooling import max_pool_with_indices, max_unpool
from nnlab.ops.response_normalization import local_response_norm

_COUNTS = (2, 2, 3, 3, 3)


class SegNet(Network):
    """Map images [batch, height, width, channels] to logits [batch, height, width, classes].

    All layers use `arithmetic`, except the first convolution and the last, which use `first` and
    `classifier` (float by default). `widths` are those of the stages of the encoder. `dtype` is the
    dtype of the computation, by default that of images and parameters together; parameters, running
    statistics and logits are always float32. With `axis_name`, BatchNorm takes the batches of all
    devices along that mapped axis as one.

    Intermediates: "pool1" to "pool5", the maxima of the stages.
    """

    classes: int = 11
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    widths: tuple[int, int, int, int, int] = (64, 128, 256, 512, 512)
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        norm = functools.partial(batch_norm, train, dtype=self.dtype, axis_name=self.axis_name)

        def block(x, arithmetic, features, name):
            layer = functools.partial(arithmetic.conv, dtype=self.dtype, use_bias=True, padding=1)
            x = norm(name=f"bn{name}")(layer(features, (3, 3), name=f"conv{name}")(x))
            return self.arithmetic.activation(x)

        pooled = []
        for stage, (count, width) in enumerate(zip(_COUNTS, self.widths, strict=True), 1):
            for layer in range(1, count + 1):
                arithmetic = self.first if stage == layer == 1 else self.arithmetic
                x = block(x, arithmetic, width, f"{stage}_{layer}")
            size = x.shape[1], x.shape[2]
            x, indices = max_pool_with_indices(x, padding="CEIL")
            pooled.append((indices, size))
            self.sow("intermediates", f"pool{stage}", x)
        for stage in range(5, 0, -1):
            x = max_unpool(x, *pooled[stage - 1])
            width, below = self.widths[stage - 1], self.widths[max(stage - 2, 0)]
            for layer in range(_COUNTS[stage - 1], 0, -1):
                if stage == layer == 1:
                    break
                features = below if layer == 1 else width
                x = block(x, self.arithmetic, features, f"{stage}_{layer}_d")
        last = functools.partial(self.classifier.conv, use_bias=True, dtype=self.dtype)
        x = last(self.classes, (3, 3), padding=1, name="conv1_1_d")(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class SegNetBasic(Network):
    """Map images [batch, height, width, channels] to logits [batch, height, width, classes].

    Fields are those of `SegNet`, with one width of all layers. Local response normalisation is that
    of Caffe: five channels, α = 10⁻⁴ divided by their number.
    """

    classes: int = 11
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    width: int = 64
    stages: int = 4
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        norm = functools.partial(batch_norm, train, dtype=self.dtype, axis_name=self.axis_name)

        def block(x, arithmetic, name):
            layer = functools.partial(arithmetic.conv, dtype=self.dtype, use_bias=True, padding=3)
            return norm(name=f"bn{name}")(layer(self.width, (7, 7), name=f"conv{name}")(x))

        x = local_response_norm(x, 5, 1e-4 / 5, 0.75, 1.0)
        pooled = []
        for stage in range(1, self.stages + 1):
            x = block(x, self.first if stage == 1 else self.arithmetic, f"{stage}")
            x = self.arithmetic.activation(x)
            size = x.shape[1], x.shape[2]
            x, indices = max_pool_with_indices(x, padding="CEIL")
            pooled.append((indices, size))
        for stage in range(self.stages, 0, -1):
            x = block(max_unpool(x, *pooled[stage - 1]), self.arithmetic, f"_decode{stage}")
        last = functools.partial(self.classifier.conv, use_bias=True, dtype=self.dtype)
        x = last(self.classes, (1, 1), name="conv_classifier")(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))
