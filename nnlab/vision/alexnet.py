"""AlexNet: the common variant with one tower, and the original with two groups.

Five convolutions (11×11 with stride 4, 5×5, and three of 3×3) with a 3×3 maximum of stride 2 after
the first, the second and the last; then 6×6 positions go into dense layers of 4,096, 4,096 and
`classes`. Parameters with 1,000 classes, and multiply-adds at each network's image size:

====================  ==========================  ==========  =========  =============
network               widths                      parameters  image      multiply-adds
====================  ==========================  ==========  =========  =============
`AlexNet`             64, 192, 384, 256, 256      61,100,840  224×224    714,188,480
`original_alexnet`    96, 256, 384, 384, 256,     60,965,224  227×227    724,406,816
                      2 groups
`ungrouped_alexnet`   the same, 1 group           62,378,344  227×227    1,135,256,096
====================  ==========================  ==========  =========  =============

The original has two groups, one for each of its two GPUs, in its second, fourth and fifth
convolution, and response normalisation after the activations of the first two. The paper's images
are 224×224, where `padding=2` gives the 55×55 positions of its figure; the default here is 227×227
without padding, as in Caffe. Weights start as the arithmetic has it, not as in the paper.

References:
    Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional neural
    networks, NeurIPS 2012: sections 3.3 response normalisation, 3.5 layers, 4.2 dropout.
    Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014,
    https://arxiv.org/abs/1404.5997, as torchvision has it (alexnet.py).
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jax import lax

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.files.borrowing import Flattened, names_of
from nnlab.layers.grouped import GroupedConv
from nnlab.layers.normalization import batch_norm
from nnlab.networks import Count, Network
from nnlab.ops.adaptive_pooling import adaptive_avg_pool
from nnlab.ops.pooling import max_pool
from nnlab.ops.response_normalization import local_response_norm


class AlexNet(Network):
    """Map images [batch, height, width, channels] to logits [batch, classes].

    All layers use `arithmetic`, except the first convolution and the three dense layers, which use
    `first` and `classifier` (float by default). `groups` applies to the second, fourth and fifth
    convolution; `padding` to the first, in pixels on each side. Dropout of rate `dropout` acts on
    the inputs of the dense layers named in `dropped`; in training, `apply` takes `rngs={"dropout":
    key}`.

    `norm` replaces the bias of each convolution by BatchNorm, and `norm_dense` that of each dense
    layer, the last included. Adders need both: their outputs lie near minus the number of their
    terms, and nothing would pass the activation.

    `dtype` is the dtype of the computation, by default that of images and parameters together;
    parameters, running statistics and logits are always float32. With `axis_name`, BatchNorm takes
    the batches of all devices along that mapped axis as one; by default each device normalises its
    own.

    Intermediates: "pool1", "pool2" and "pool5" [batch, height, width, features], and "features"
    [batch, hidden], the input of the last dense layer before dropout.

    Raises:
        InputError: `groups` does not divide the widths.
        ValueError: the image is smaller than 63×63 (with `padding` 2), or has not four axes.
    """

    classes: int = 1000
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    widths: tuple[int, int, int, int, int] = (64, 192, 384, 256, 256)
    hidden: int = 4096
    groups: int = 1
    padding: Count = 2
    response_norm: bool = False
    dropout: float = 0.5
    dropped: tuple[str, ...] = ("fc6", "fc7")
    norm: bool = False
    norm_dense: bool = False
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        norm = functools.partial(batch_norm, train, dtype=self.dtype, axis_name=self.axis_name)
        for layer, (features, size) in enumerate(zip(self.widths, _KERNELS, strict=True), 1):
            conv = self.first.conv if layer == 1 else self.arithmetic.conv
            if layer in (2, 4, 5) and self.groups != 1:
                conv = functools.partial(GroupedConv, conv, self.groups)
            x = conv(
                features,
                (size, size),
                strides=4 if layer == 1 else 1,
                padding=self.padding if layer == 1 else size // 2,
                use_bias=not self.norm,
                dtype=self.dtype,
                name=f"conv{layer}",
            )(x)
            if self.norm:
                x = norm(name=f"bn{layer}")(x)
            x = self.arithmetic.activation(x)
            if layer in (1, 2) and self.response_norm:
                x = local_response_norm(x)
            if layer in (1, 2, 5):
                x = max_pool(x, 3, 2)
                self.sow("intermediates", f"pool{layer}", x)

        x = adaptive_avg_pool(x, 6)
        x = lax.collapse(x, 1)
        for name, features in (("fc6", self.hidden), ("fc7", self.hidden), ("fc8", self.classes)):
            if name == "fc8":
                self.sow("intermediates", "features", x)
            if name in self.dropped:
                x = nn.Dropout(self.dropout, deterministic=not train, name=f"dropout_{name}")(x)
            dense = functools.partial(self.classifier.dense, dtype=self.dtype, name=name)
            x = dense(features, use_bias=not self.norm_dense)(x)
            if self.norm_dense:
                x = norm(name=f"bn_{name}")(x)
            if name != "fc8":
                x = self.classifier.activation(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


_KERNELS = (11, 5, 3, 3, 3)

ungrouped_alexnet = functools.partial(
    AlexNet,
    widths=(96, 256, 384, 384, 256),
    padding=0,
    response_norm=True,
    dropped=("fc7", "fc8"),
)
original_alexnet = functools.partial(ungrouped_alexnet, groups=2)


@names_of(AlexNet)
def torch_names(model: AlexNet) -> dict[str, str | Flattened]:
    """Return torchvision's names of the layers of its `alexnet`; for the original, Caffe's names.

    torchvision has neither groups nor response normalisation. The table of a model with either fits
    PyTorch code of the original network that calls its layers conv1 to conv5 and fc6 to fc8.
    """
    layers = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    theirs = layers
    if model.groups == 1 and not model.response_norm:
        features = (f"features.{i}" for i in (0, 3, 6, 8, 10))
        theirs = (*features, *(f"classifier.{i}" for i in (1, 4, 6)))
    names: dict[str, str | Flattened] = dict(zip(layers, theirs, strict=True))
    return names | {"fc6": Flattened(theirs[5], model.widths[-1], 6, 6)}
