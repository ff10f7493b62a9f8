"""VGG: stacks of 3×3 convolutions, with 11 to 19 layers that have weights.

Five stages of 3×3 convolutions to 64, 128, 256, 512 and 512 channels, each followed by a 2×2
maximum; then 7×7 positions go into dense layers of 4,096, 4,096 and `classes`. With 1,000 classes
and 224×224 images:

=====  ==========================  ===========  ===============  ==============
depth  convolutions a stage        parameters   with BatchNorm   multiply-adds
=====  ==========================  ===========  ===============  ==============
11     1, 1, 2, 2, 2               132,863,336  132,868,840      7,609,090,048
13     2, 2, 2, 2, 2               133,047,848  133,053,736      11,308,466,176
16     2, 2, 3, 3, 3               138,357,544  138,365,992      15,470,264,320
19     2, 2, 4, 4, 4               143,667,240  143,678,248      19,632,062,464
=====  ==========================  ===========  ===============  ==============

These are the paper's networks A, B, D and E. Weights start as the arithmetic has it.

References:
    Simonyan and Zisserman, Very deep convolutional networks for large-scale image recognition,
    ICLR 2015, https://arxiv.org/abs/1409.1556, table 1. torchvision (vgg.py) for BatchNorm.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jax import lax

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.files.borrowing import Flattened, names_of
from nnlab.layers.normalization import batch_norm
from nnlab.networks import Network
from nnlab.ops.adaptive_pooling import adaptive_avg_pool
from nnlab.ops.pooling import max_pool

_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(Network):
    """Map images [batch, height, width, channels], at least 32×32, to logits [batch, classes].

    All layers use `arithmetic`, except the first convolution and the three dense layers, which use
    `first` and `classifier` (float by default). Dropout of rate `dropout` acts on the inputs of the
    last two dense layers; in training, `apply` takes `rngs={"dropout": key}`.

    `norm` adds BatchNorm after each convolution, which keeps its bias as in torchvision;
    `norm_dense` replaces the bias of each dense layer by BatchNorm, the last included. Adders need
    both: their outputs lie near minus the number of their terms, and nothing would pass the
    activation.

    `dtype` is the dtype of the computation, by default that of images and parameters together;
    parameters, running statistics and logits are always float32. With `axis_name`, BatchNorm takes
    the batches of all devices along that mapped axis as one; by default each device normalises its
    own.

    Intermediates: "stage1" to "stage5" [batch, height, width, features] before the maximum of each
    stage, "pool1" to "pool5" after it, and "features" [batch, hidden], the input of the last dense
    layer before dropout.

    Raises:
        InputError: `depth` is none of those above.
        ValueError: the image has fewer than 32 pixels on a side, or not four axes.
    """

    depth: int = 16
    classes: int = 1000
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    widths: tuple[int, int, int, int, int] = (64, 128, 256, 512, 512)
    hidden: int = 4096
    dropout: float = 0.5
    norm: bool = False
    norm_dense: bool = False
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        norm = functools.partial(batch_norm, train, dtype=self.dtype, axis_name=self.axis_name)
        x = max_pool(self._stages(x, train))
        self.sow("intermediates", "pool5", x)
        x = adaptive_avg_pool(x, 7)
        x = lax.collapse(x, 1)
        for name, features in (("fc6", self.hidden), ("fc7", self.hidden), ("fc8", self.classes)):
            if name == "fc8":
                self.sow("intermediates", "features", x)
            if name != "fc6":
                x = nn.Dropout(self.dropout, deterministic=not train, name=f"dropout_{name}")(x)
            dense = functools.partial(self.classifier.dense, dtype=self.dtype, name=name)
            x = dense(features, use_bias=not self.norm_dense)(x)
            if self.norm_dense:
                x = norm(name=f"bn_{name}")(x)
            if name != "fc8":
                x = self.classifier.activation(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))

    def _stages(self, x: jax.Array, train: bool) -> jax.Array:
        """Return the output of the last stage, before its maximum."""
        norm = functools.partial(batch_norm, train, dtype=self.dtype, axis_name=self.axis_name)
        for stage, count in enumerate(_convolutions(self.depth), 1):
            for layer in range(1, count + 1):
                arithmetic = self.first if stage == layer == 1 else self.arithmetic
                x = arithmetic.conv(
                    self.widths[stage - 1],
                    (3, 3),
                    padding=1,
                    use_bias=True,
                    dtype=self.dtype,
                    name=f"conv{stage}_{layer}",
                )(x)
                if self.norm:
                    x = norm(name=f"bn{stage}_{layer}")(x)
                x = self.arithmetic.activation(x)
            self.sow("intermediates", f"stage{stage}", x)
            if stage < 5:
                x = max_pool(x)
                self.sow("intermediates", f"pool{stage}", x)
        return x


class VGGStages(VGG):
    """A `VGG` without its last maximum and its dense layers, whose options do nothing here.

    Map images [batch, height, width, channels] to [batch, height / 16, width / 16, features].
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return self._stages(x, train)


vgg11 = functools.partial(VGG, 11)
vgg13 = functools.partial(VGG, 13)
vgg16 = functools.partial(VGG, 16)
vgg19 = functools.partial(VGG, 19)
vgg11_bn = functools.partial(VGG, 11, norm=True)
vgg13_bn = functools.partial(VGG, 13, norm=True)
vgg16_bn = functools.partial(VGG, 16, norm=True)
vgg19_bn = functools.partial(VGG, 19, norm=True)


@names_of(VGG)
def torch_names(model: VGG) -> dict[str, str | Flattened]:
    """Return torchvision's names of the layers of `vgg11` to `vgg19` and `vgg11_bn` to `vgg19_bn`.

    torchvision numbers what its `features` hold: convolution, BatchNorm if any, ReLU, maximum.
    """
    names: dict[str, str | Flattened] = {}
    number = 0
    for stage, count in enumerate(_convolutions(model.depth), 1):
        for layer in range(1, count + 1):
            names[f"conv{stage}_{layer}"] = f"features.{number}"
            if model.norm:
                names[f"bn{stage}_{layer}"] = f"features.{number + 1}"
            number += 3 if model.norm else 2
        number += 1
    first = Flattened("classifier.0", model.widths[-1], 7, 7)
    return names | {"fc6": first, "fc7": "classifier.3", "fc8": "classifier.6"}


def _convolutions(depth: int) -> tuple[int, ...]:
    if depth not in _CONVOLUTIONS:
        raise InputError(f"depth must be one of {', '.join(map(str, _CONVOLUTIONS))}, not {depth}.")
    return _CONVOLUTIONS[depth]
